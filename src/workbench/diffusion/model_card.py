"""The card of an exported sanitizer: what it is, how far to trust it, how to run it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from workbench import __version__
from workbench.core.errors import DataError
from workbench.core.plain import one_line
from workbench.diffusion.checkpoint import Checkpoint
from workbench.embedding.windows import STRIDE_TOKENS, WINDOW_TOKENS

__all__ = ["model_card"]

_CELL_CHARS = 200
_AREAS = ("auroc_benign", "auroc_lookalike")
_SHARES = ("false_positive_rate", "lookalike_flag_rate", "recall", "calibration_error")
_CARD = """\
# Prompt sanitizer {short}

Reads a prompt for a language model and says which of its tokens are the request, whether that asks
for harm, whether it wears a wrapper (a role, a story, an order to forget rules), and where the bare
request would stand among vectors of all-MiniLM-L6-v2. For a harmful one it names a safe text to
send in its place. Exported by the Prompt Safety Workbench {version} as ONNX, safetensors and JSON:
nothing here is a pickle.

{facts}

## Intended use

In front of a language model, or to mark prompts for people to read. Not as the only safeguard, not
to judge whoever wrote a prompt, not for decisions about people.

## Limits

- It knows the languages, wrappers and kinds of harm of its training data; others may pass.
- The thresholds were chosen on {texts:,} validation texts that resemble the training data. Expect
  other rates elsewhere, and measure them on labelled prompts of your own (`workbench evaluate`).
- A safe text is one of {gallery:,} known ones. It may miss what the prompt was about.
- int8 is a little blurred: its logits differ from those that the thresholds were chosen by.
- The graphs know no conditions (language, domain), and the code below reads a prompt once. The
  Workbench cuts the request out of a wrapper by the payload logits and reads it again, alone.

## Routing

Risk is the logistic function of `weights` times the harm of the whole prompt, that of the request
alone, the wrapper, and 1. A prompt is redirected from the threshold on.

{routing}

## Measured

{measured}

## Judges

{judges}

## Training

Data and configuration as they were recorded:

~~~json
{about}
~~~

## Run it

In this folder, after `sha256sum -c SHA256SUMS`:

```python
{code}
```

## Files

{files}

## License

The code is under the MIT license, the encoder all-MiniLM-L6-v2 under Apache-2.0. Trained weights
and the texts of the gallery come from the training data: its data card lists the licenses of its
sources, which hold for what you pass on.
"""
_CODE = """\
import json
import numpy as np
from onnxruntime import InferenceSession
from safetensors.numpy import load_file
from tokenizers import Tokenizer

prompt = "How do I bake bread?"
tokenizer = Tokenizer.from_file("tokenizer.json")
tokenizer.no_truncation()
tokenizer.no_padding()
start, end = tokenizer.encode("").ids
encoder, heads = (InferenceSession(f"{{name}}.onnx") for name in ("encoder.{precision}", "heads"))
routing, gallery = (json.load(open(f"{{name}}.json")) for name in ("routing", "gallery"))
ids = tokenizer.encode(prompt, add_special_tokens=False).ids
windows = [ids[at : at + {window}] for at in range(0, max(len(ids) - {shared}, 1), {stride})]
states = [encoder.run(None, {{"ids": [[start, *one, end]]}})[0][0] for one in windows]
payload, harm, wrapped, vector = heads.run(None, {{"states": np.concatenate(states)}})
risk = 1 / (1 + np.exp(-np.dot(routing["weights"], [harm, harm, wrapped, 1])))
if risk >= routing["wrapped" if wrapped > 0 else "bare"]:
    proposed = {proposed}
    cosines = load_file("gallery.safetensors")["vectors"].astype(np.float32) @ proposed.T
    prompt = gallery[cosines.max(axis=1).argmax()]
print(prompt)"""
_BY_PRIOR = 'InferenceSession("redirect.onnx").run(None, {"vector": vector[None]})[0][0]'
_UNMEASURED = """\
Nothing was, beyond the rates above. `workbench evaluate MODEL --data ... --out figures.json`
measures it, `workbench export MODEL --out ... --evaluation figures.json` puts the figures here."""


def model_card(
    checkpoint: Checkpoint,
    *,
    encoder: str,
    redirects: str,
    files: Mapping[str, bytes],
    sums: Mapping[str, str],
    evaluation: Mapping[str, Any] | None,
) -> str:
    """Return the card as Markdown; what others wrote is escaped or fenced, so none is markup.

    Args:
        checkpoint: The sanitizer.
        encoder: Id of its encoder.
        redirects: How safe texts are found, in words.
        files: Name → content.
        sums: Name → sha256.
        evaluation: What ``workbench evaluate`` wrote, if it did.

    Raises:
        DataError: If the evaluation is of another model, or none at all.
    """
    config, routing = checkpoint.config, checkpoint.routing
    about, tagger = config["about"], config["tagger"]
    facts = {
        "model": config["id"],
        "encoder": encoder,
        "training data": f"pair set {about.get('pair_set', 'not recorded')}",
        "seeds": ", ".join(sorted(set(_seeds(about)))) or "not recorded",
        "tagger": f"{tagger['tuned_layers']} layers of the encoder tuned, "
        f"heads {tagger['hidden']} wide",
        "redirects": redirects,
        "training": _trained(config.get("trained")),
    }
    shares = (routing.false_positive_rate, routing.recall)
    limits = [
        [name, f"{limit:.4f}", *(_share(share.get(name)) for share in shares)]
        for name, limit in (("bare", routing.bare), ("wrapped", routing.wrapped))
    ]
    measured, judges = _evaluated(evaluation, config["id"])
    code = _CODE.format(
        precision="float32" if "encoder.float32.onnx" in files else "int8",
        proposed=_BY_PRIOR if "redirect.onnx" in files else "vector[None]",
        window=WINDOW_TOKENS,
        stride=STRIDE_TOKENS,
        shared=WINDOW_TOKENS - STRIDE_TOKENS,
    )
    listed = [[f"`{name}`", f"{len(data):,}", f"`{sums[name]}`"] for name, data in files.items()]
    return _CARD.format(
        short=config["id"][:12],
        version=__version__,
        facts=_table(["", ""], [[name, _cell(said)] for name, said in facts.items()]),
        texts=routing.texts,
        gallery=len(config["gallery"]),
        routing=_table(["prompts", "threshold", "false positives", "recall"], limits),
        measured=measured,
        judges=judges,
        about=json.dumps(about, indent=1),  # ASCII, and no line of it can end the fence
        code=code,
        files=_table(["file", "bytes", "sha256"], listed),
    )


def _evaluated(said: Mapping[str, Any] | None, model: str) -> tuple[str, str]:
    """Return what was measured, and the errors of the judges that it rests on."""
    if said is None:
        return _UNMEASURED, "None: nothing was measured."
    if said.get("models") != [model]:
        raise DataError(f"the evaluation is of {said.get('models')!r:.100}, not of [{model!r}]")
    if last_word := said.get("last_word"):
        raise DataError(
            f"in the evaluation judge {last_word!r:.100} had the last word, which is not exported; "
            "evaluate without --judge"
        )
    try:
        told = (
            f"On {said['rows']['prompts']:,} prompts in {said['groups']:,} groups "
            f"({_cell(said['origin'] or 'of unknown origin')}, sha256 {_cell(said['data'])}), "
            f"encoder in {_cell(said['precision'])}, cosines by {_cell(said['encoder'])}, "
            "with 95 % intervals; methods beside the sanitizer are baselines and judges."
        )
        figures = [
            [_cell(row["method"]), _cell(row["metric"]), _interval(row), f"{row['n']:,}"]
            for row in said["figures"]
            if row["gain"] == 1 and not row["by"]
        ]
        judges = [
            [
                _cell(one["id"]),
                *(_interval(one[name]) for name in _AREAS),
                *(_share(one[name]) for name in _SHARES),
            ]
            for one in said["judges"]
        ]
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"the evaluation lacks something ({one_line(str(error))[:_CELL_CHARS]}); "
            "give what `workbench evaluate --out` wrote"
        ) from error
    names = [name.replace("_", " ") for name in (*_AREAS, *_SHARES)]
    return (
        f"{told}\n\n{_table(['method', 'figure', 'value', 'n'], figures)}",
        _table(["judge", *names], judges),
    )


def _trained(said: Any) -> str:
    """Return what training took, in words."""
    try:
        share = said["utilization"]
        used = (
            "no share of a peak is claimed" if share is None else f"{share:.1%} of the GPUs' peak"
        )
        return (
            f"{said['steps']:,} steps in {said['train_s']:,.0f} s, {said['processes']} × "
            f"{said['hardware']}; {said['samples_per_s']:,.0f} samples/s; {said['flops']:.3g} FLOP "
            f"counted, {used} (dense bf16)"
        )
    except (LookupError, TypeError, ValueError):
        return "not recorded"


def _seeds(said: Any) -> Iterator[str]:
    """Give every seed that was recorded."""
    if isinstance(said, Mapping):
        for name, value in said.items():
            yield from [str(value)] if name == "seed" else _seeds(value)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _interval(row: Mapping[str, float]) -> str:
    return f"{row['value']:.3f} ({row['low']:.3f}–{row['high']:.3f})"


def _share(share: float | None) -> str:
    return "not recorded" if share is None else f"{share:.3f}"


def _cell(text: str) -> str:
    """Return a text of somebody else's as the content of a table's cell, without markup."""
    return re.sub(r"([\\`*_{}\[\]()<>#+!|~&$@:/.])", r"\\\1", one_line(text)[:_CELL_CHARS])
