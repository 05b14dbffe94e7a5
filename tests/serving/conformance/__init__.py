"""TF Serving's behaviour, asked of an address: the embedded server or a real one."""
