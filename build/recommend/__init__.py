"""Which recipe fits: what each model would need and do on a device, estimated before it is built."""
