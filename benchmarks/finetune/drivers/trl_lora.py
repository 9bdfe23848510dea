"""The driver that trains a LoRA adapter with TRL's `SFTTrainer` and PEFT on tokenized examples.

    python trl_lora.py JOB.json

`benchmarks.finetune.speed` writes JOB.json. The last line of the output is a JSON object with the number of non-padding
tokens and the duration of the measured steps, the losses of all steps, and the memory in bytes.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = os.environ["TRANSFORMERS_OFFLINE"] = "1"


def main() -> None:
    """Train the adapter with the settings of the job, and print the measurements."""
    job = json.loads(Path(sys.argv[1]).read_text())
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    torch.set_num_threads(job["threads"])
    torch.manual_seed(job["seed"])
    idle = _resident()
    rows = [json.loads(line) for line in Path(job["data"]).read_text().splitlines()]
    data = Dataset.from_list([{"input_ids": ids, "completion_mask": trained} for ids, trained in rows])
    model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=getattr(torch, job["weights"]))
    steps, warmup = job["steps"], job["warmup"]
    settings = SFTConfig(
        output_dir=job["out"],
        max_steps=steps,
        per_device_train_batch_size=job["rows"],
        gradient_accumulation_steps=1,
        max_length=job["length"],
        packing=job["packing"],
        completion_only_loss=True,
        learning_rate=job["learning_rate"],
        lr_scheduler_type="constant",
        max_grad_norm=1.0,
        bf16=job["autocast"],
        fp16=False,
        gradient_checkpointing=job["checkpointing"],
        use_cpu=True,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        seed=job["seed"],
        dataloader_num_workers=0,
        torch_compile=job.get("compile", False),
    )
    lora = LoraConfig(
        r=job["rank"], lora_alpha=job["alpha"], lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"
    )

    class StepTimer(TrainerCallback):
        started = ended = 0.0

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == warmup:
                self.started = time.perf_counter()
            elif state.global_step == steps:
                self.ended = time.perf_counter()

    timer = StepTimer()
    trainer = SFTTrainer(
        model=model,
        args=settings,
        train_dataset=data,
        processing_class=AutoTokenizer.from_pretrained(job["model"]),
        peft_config=lora,
        callbacks=[timer],
    )
    num_tokens: list[int] = []
    collate = trainer.data_collator

    def counting_collator(examples: list[dict[str, Any]]) -> dict[str, Any]:
        """Call the trainer's collator, and count the tokens that are not padding."""
        num_tokens.append(sum(len(example["input_ids"]) for example in examples))
        batch: dict[str, Any] = collate(examples)
        return batch

    trainer.data_collator = counting_collator
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    print(
        json.dumps(
            {
                "tokens": sum(num_tokens[warmup:steps]),
                "seconds": timer.ended - timer.started,
                "losses": losses,
                "idle_bytes": idle,
                "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            }
        )
    )


def _resident() -> int:
    """Return the resident set size of this process in bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


if __name__ == "__main__":
    main()
