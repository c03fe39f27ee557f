"""One file a peer: how another library's attention is built, called and checked."""
