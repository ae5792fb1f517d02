"""The miniature: a small image model with the bias of web data, in which culture can be measured.

`scenes` draws the pictures, `captions` writes the prompts, `training` makes the weights that the pack
ships, `judge` names what a picture shows, `model` samples from the shipped weights without ComfyUI.
"""
