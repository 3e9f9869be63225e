"""Low-rank adaptation (LoRA): small factors beside a kernel, which train, are saved and merge without the kernel itself."""
