"""A study whose adapters were never trained but change the output, for tests of rendering.

    python -m tests.cinelora.render.rendering RANK PORT STUDY CACHE IMAGE OUT MODE...

As a program it is one of two gloo processes: it renders once per mode and
prints the SHA-256 of the latents of every window.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

from cinelora.core.config import LoraConfig, Method, Scaling, TargetSet, TrialConfig
from cinelora.core.files import write_json
from cinelora.core.paths import StudyFolder
from cinelora.core.records import TrialResult, from_dict, to_dict
from cinelora.core.seeds import draw_noise
from cinelora.wan import lora
from cinelora.wan.checkpoint import model_fingerprint, model_folder
from cinelora.wan.loading import load_transformer
from sweeps.plan import trial_spec
from tests import tiny_study

LORAS = {
    "rank 4": LoraConfig(rank=4),
    "alpha 3": LoraConfig(rank=4, scaling=Scaling.constant, alpha=3.0, targets=TargetSet.block),
    "rank 2": LoraConfig(rank=2, scaling=Scaling.rslora, alpha=5.0, targets=TargetSet.self),
}


def save(transformer: Any, folder: Path, settings: LoraConfig) -> Path:
    """An adapter file with a large random B, for `transformer`, which stays unchanged."""
    parameters = lora.attach(transformer, settings, seed=settings.rank)
    state = {
        name: p.data if ".lora_A" in name else draw_noise(tuple(p.shape), name, settings.rank) for name, p in parameters
    }
    lora.save_adapter(folder, state, settings)
    lora.detach(transformer)
    return folder / "pytorch_lora_weights.safetensors"


def finish(study: StudyFolder, cache: Path, config: TrialConfig) -> str:
    """A finished trial of this config in the study; returns its id."""
    folder = model_folder(config.model, cache)
    spec = trial_spec(config, {"model": model_fingerprint(folder, ""), "data": "x", "encoder": "1"})
    trial = study.trial(spec.trial_id)
    if config.method is Method.lora:
        save(load_transformer(folder, config.model.dtype), trial.adapter, config.lora)
    values: dict[str, Any] = {item.name: 0 for item in fields(TrialResult)}
    values |= {"trial_id": spec.trial_id, "method": config.method.value, "arm": config.arm, "seed": config.seed}
    values |= {"rank": config.lora.rank, "scale": config.lora.scale, "protocol": {}, "adapter_sha256": "ab"}
    write_json(trial.spec, spec.to_json())
    write_json(trial.result, TrialResult(**values).to_json())
    return spec.trial_id


def config_of(name: str, root: Path, **changes: Any) -> TrialConfig:
    """A tiny trial with one of LORAS."""
    data = to_dict(tiny_study.tiny_config(root / "clips", **changes))
    return from_dict(TrialConfig, {**data, "lora": to_dict(LORAS[name])})


def main() -> None:
    rank, port, study, cache, image, out, *modes = sys.argv[1:]
    os.environ.update(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    from cinelora.render import __main__ as render
    from cinelora.render import session

    seen: list[str] = []
    decode = session.decode_video

    def hashing(vae: Any, latents: Any) -> Any:
        seen.append(hashlib.sha256(latents.contiguous().numpy().tobytes()).hexdigest())
        return decode(vae, latents)

    session.decode_video = hashing  # type: ignore[assignment]
    for mode in modes:
        seen.clear()
        arguments = [study, "--image", image, "--prompt", "a square", "--cache", cache, "--frames", "15"]
        code = render.main([*arguments, "--out", f"{out}/{mode}", "--parallel", mode])
        print(json.dumps({"mode": mode, "code": code, "latents": list(seen)}), flush=True)


if __name__ == "__main__":
    main()
