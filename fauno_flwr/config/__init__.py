"""Settings of a run: dataclasses, and the YAML that fills them."""
