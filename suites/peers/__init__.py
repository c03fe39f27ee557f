"""Other people's implementations, one file each, to be measured beside ours."""
