"""The command line, a module a command.

A command's module has `add_arguments(parser)`, and `run(options)`, which returns what it found as a
dictionary that JSON can hold; `describe(result)` says the same to people. Where its entry `failed` is true,
the exit code is 1. Only the module of the command that was asked for is imported, so that help is instant.
"""

COMMANDS = {
    "fetch-encoder": "get multilingual-e5-small, the text encoder of the examples",
    "pairs": "make prompt pairs from a short text with nouns and culture modifiers marked",
    "probe": "find the layer in which a culture modifier acts on its noun",
    "train-sae": "train a sparse autoencoder on one layer",
    "detect": "find the culture neurons of a culture SAE",
    "mask": "mask the culture neurons and random ones, and compare",
    "train-enhancer": "train a layer enhancer on pictures of a culture, with a diffusers pipeline",
    "generate": "have systems draw the prompts of an evaluation: ComfyUI, diffusers, folders of pictures",
    "judge": "judge the cultures that pictures show (CultureVQA)",
    "metrics": "measure a run's pictures: CLIPScore, ImageReward, LPIPS, FID, KID, diversity",
    "bench": "build, review, split, check and exchange a CultureBench of captioned pictures",
    "inspect": "say what a file of this pack, or an SAE of another library, holds",
    "reproduce": "run the paper's whole study in miniature and write the report",
    "convert": "turn SAEs of sparsify, SAELens and dictionary_learning into culture SAEs, and back",
    "study": "compare the systems of a run, ablations and strengths, in a report with significance",
    "user-study": "make a questionnaire of a run's pictures, and analyse the answers",
}
"""What each command does; its module has the command's name, with underscores."""
