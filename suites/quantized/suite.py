"""Suite quantized: a trained model with its weights in fewer bits. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import click
from click import Option

from results.schema import Arm
from suites.parameters import Several
from suites.quality.rows import TEXT, QualityPreset
from suites.quality.suite import TRAINING_OPTIONS, TrainingSuite, training_defaults

WEIGHTS = ("float32", "bfloat16", "int8", "int4")
"""What a trained model's parameters are kept in."""

QUANTIZED_PRESETS: Mapping[str, QualityPreset] = {
    "quick": QualityPreset(
        (replace(TEXT, backends=(Arm("sdpa"),)),), seeds=1, budget_s=0.5, weights=WEIGHTS
    )
}
"""By name."""


class QuantizedSuite(TrainingSuite):
    """What a trained model loses, and saves, with its weights in fewer bits."""

    name = "quantized"
    kind = "quantized"
    summary = "a trained model with its weights in fewer bits"
    presets = QUANTIZED_PRESETS
    examples = ("attnbench run quantized --weights float32,int8 --out runs/quantized",)
    defaults: Mapping[str, str] = training_defaults(presets)
    options = (
        *TRAINING_OPTIONS,
        Option(
            ["--weights"],
            type=Several(click.Choice(WEIGHTS)),
            metavar="TYPE,…",
            show_default="all",
            help=f"What weights are kept in: {', '.join(WEIGHTS)}.",
        ),
    )


SUITE = QuantizedSuite()
