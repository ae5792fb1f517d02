"""What the paper reports, for the column beside ours, and where it contradicts itself.

Figures from *Where Culture Fades* (arXiv 2511.17282): CultureVQA in percent, or shares of such figures.
"""

PAPER: dict[tuple[str, str], str] = {
    # Tables 1, 2, 3, 5 and 6: CultureVQA, percent.
    ("neutral", "pea"): "21.65",
    ("neutral", "alt"): "23.05",
    ("explicit", "pea"): "35.62",
    ("explicit", "alt"): "44.39 (44.54 in Table 5)",
    ("amplified", "pea"): "33.91",
    ("amplified", "alt"): "30.06",
    ("enhanced", "pea"): "36.63",
    ("enhanced", "alt"): "32.66",
    ("masked", "pea"): "7.65",
    ("masked", "alt"): "12.04",
    ("masked, random (frequency)", "pea"): "33.04",
    ("masked, random (frequency)", "alt"): "42.45",
    ("amplified, random (frequency)", "pea"): "21.04",
    ("amplified, random (frequency)", "alt"): "20.38",
    ("enhanced, random layer", "pea"): "22.34 (“random”)",
    ("enhanced, random layer", "alt"): "21.04 (“random”)",
    ("outside, neutral", "pea"): "15",
    ("outside, neutral", "alt"): "15",
    ("outside, amplified", "pea"): "22",
    ("outside, amplified", "alt"): "20",
    ("outside, enhanced", "pea"): "35",
    ("outside, enhanced", "alt"): "32",
    # Computed from those.
    ("recovery amplified", "pea"): "0.88",
    ("recovery amplified", "alt"): "0.33",
    ("recovery enhanced", "pea"): "1.07",
    ("recovery enhanced", "alt"): "0.45",
    ("left masked", "pea"): "0.21",
    ("left masked", "alt"): "0.27",
    ("left random", "pea"): "0.93",
    ("left random", "alt"): "0.95",
    ("no loss", "pea"): "no loss",
    ("no loss", "alt"): "no loss",
    ("English", "pea"): "shown for 5 cultures",
    ("English", "alt"): "shown for 5 cultures",
}
"""By (row or figure, system). What the paper shows in pictures only (Fig. 4, 6, 7, 11, 13 to 16) has no number."""

QUALITY: tuple[tuple[str, float, float, float, float], ...] = (
    ("SDXL", 9.36, 0.211, -1.82, 0.756),
    ("FLUX.1-dev", 14.83, 0.224, -0.88, 0.692),
    ("Show-o2", 16.43, 0.234, -0.91, 0.691),
    ("PEA-Diffusion", 21.65, 0.253, -0.65, 0.673),
    ("AltDiffusion", 23.05, 0.282, -0.11, 0.688),
    ("SD 3.5", 25.13, 0.242, -1.01, 0.715),
    ("PEA-Diffusion, amplified", 33.91, 0.291, 0.33, 0.654),
    ("PEA-Diffusion, fine-tuned", 36.63, 0.290, 0.31, 0.661),
)
"""The paper's Table 2, neutral prompts: system, CultureVQA %, CLIPScore, ImageReward, LPIPS."""

CONTRADICTIONS: tuple[tuple[str, str], ...] = (
    ("Table 2: +12.32 for 33.91 − 21.65 = 12.26; the fine-tuned ImageReward gain is against the other system",
     "every difference is computed anew, against one baseline"),
    ("λ = 6 in 6.1, 7 in 6.3; 35.92 at λ = 7 but 33.91 in Table 2; λ is chosen on the metric itself",
     "strengths are chosen on validation prompts, the sweep on held-out ones is shown and chooses nothing"),
    ("λ = 0 “matches perfectly”, which a plain decode cannot", "edits in delta form: strength 0 changes no bit"),
    ("44.39 and 44.54 for the same thing", "noted"),
    ("an explicit modifier ties or beats the method in the paper's own figures",
     "explicit modifier, translation, and both are baselines of every table that compares"),
    ("two judges, one number; counts that fit no test size", "one judge, counts published"),
    ("Table 6 (n = 100): 15 → 22 is p = .20", "intervals everywhere"),
    ("masked 7.65 is near chance and below neutral", "noun accuracy stands beside it"),
    ("random masks hit mostly silent latents", "random latents that are active there, matched in frequency; and in norm"),
    ("diversity “preserved”, never measured; LPIPS against an unrelated photograph",
     "diversity is measured over seeds; that distance is called reference distance"),
    ("text attention “across seeds”, which it does not have", "bootstrap over prompt pairs"),
    ("A[modifier → noun] is 0 in causal encoders where the modifier comes first",
     "this encoder sees both ways; the direction is stated"),
    ("D_att = |T_c|·|T_n| differs from prompt to prompt", "the feature is as wide as the encoder"),
    ("the “sparsity coefficient 1/32” may be k/M or the AuxK weight", "k = 32 with AuxK 1/32"),
    ("pixel MSE “through” the sampler; 2,000 steps of batch 1 is under one epoch",
     "the model's own objective at a random noise level"),
)  # fmt: skip
