"""The files of a folder that holds a state. They are told apart without importing torch."""

STATE_FILE = "state.json"
TENSORS_FILE = "state.safetensors"
