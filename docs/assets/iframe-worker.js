// Search runs in a worker, and a browser starts none for a page that was opened from the disk. There
// a hidden frame stands in for it: its script runs in the frame, and messages go between the windows.
if (location.protocol === "file:") {
  window.IFrameWorker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.append(frame);
      const inside = frame.contentWindow;
      inside.postMessage = data => this.dispatchEvent(new MessageEvent("message", { data }));
      inside.importScripts = async (...urls) => {
        for (const one of urls) await this.load(one);
      };
      this.frame = frame;
      this.ready = this.load(url);
    }

    load(url) {
      const inside = this.frame.contentDocument;
      const script = inside.createElement("script");
      script.src = new URL(url, location.href);
      return new Promise((done, failed) => {
        script.onload = done;
        script.onerror = failed;
        inside.body.append(script);
      });
    }

    postMessage(data) {
      const inside = this.frame.contentWindow;
      this.ready.then(() => inside.dispatchEvent(new inside.MessageEvent("message", { data })));
    }

    terminate() {
      this.frame.remove();
    }
  };
  window.Worker = window.IFrameWorker;
}
