"""Makes the tiny zoo from scratch on simulated training scenes: ``python -m tvad.backbones.pretrain`` (``make zoo``)."""
