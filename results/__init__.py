"""From records to answers: load, fit, compare, plot, report. Reads files; never imports torch."""
