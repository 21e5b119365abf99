"""LoRA: reading and writing its files in every key style, merging it into weights, and training it beside them.

Nothing here knows a model. A package says with `LayerNames` what its layers are called, here and elsewhere.
"""
