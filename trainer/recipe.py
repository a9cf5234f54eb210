"""Everything that a training can be told, with its bounds: the one place where it is defined."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

MAX_TOKENS = 1 << 20
MAX_STEPS = 10**7
AUTO: dict[str, Any] = {"auto": True}


def _listed(value: object) -> object:
    """A list from one value, or from a comma-separated text as flags carry it."""
    if isinstance(value, str):
        return tuple(part for part in (piece.strip() for piece in value.split(",")) if part)
    return value


def _alone(value: object) -> object:
    """A list from one text, which may hold commas."""
    return (value,) if isinstance(value, str) else value


Text = Annotated[str, Field(min_length=1, max_length=65536)]
Texts = Annotated[tuple[Text, ...], BeforeValidator(_alone)]
Word = Annotated[str, Field(min_length=1, max_length=256)]


class Recipe(BaseModel):
    """A training. Keys that are left out have their default, or are chosen by the data where they are `auto`."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, hide_input_in_errors=True, allow_inf_nan=False
    )

    # What is trained, on what.
    name: str = Field(
        default="adapter",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
        description="The adapter's name, by which requests ask for it.",
    )
    model: str | None = Field(
        default=None, min_length=1, max_length=1024, description="The base model; left out, the one that is served."
    )
    data: Texts = Field(
        default=(),
        max_length=256,
        description="Files, folders or patterns to learn from; PATH=2 is taken twice an epoch, PATH=0.5 half of it.",
    )
    validation: Texts = Field(default=(), max_length=256, description="Files to measure on, never learned from.")
    validation_split: float = Field(
        default=0.0,
        ge=0,
        le=0.5,
        description="Without `validation`: the part of the data that is kept for measuring. 0 is none.",
        json_schema_extra=AUTO,
    )

    format: Word | None = Field(default=None, description="The format of the files, where looking is not enough.")
    question: Word | None = Field(default=None, description="The column or field of the question, likewise.")
    answer: Word | None = Field(default=None, description="The column or field of the answer, likewise.")
    sheet: Word | None = Field(default=None, description="The sheet of a workbook.")

    # How.
    method: Literal["qlora", "lora", "dora", "full"] = Field(
        default="qlora",
        description="qlora learns an adapter on the 4-bit base as it is served, lora on the unquantised one, dora "
        "learns length and direction of weights apart, full changes the model itself and writes a model.",
    )
    codec: Literal["auto", "int4", "nf4", "none"] = Field(
        default="auto",
        description="Form of the base's weights while training. auto is as served, none for lora and full.",
    )
    rank: int = Field(default=16, ge=1, le=1024, description="Rank of the adapter: how much it can hold.")
    alpha: float = Field(
        default=32.0, gt=0, le=65536, description="Strength of the adapter, over its rank.", json_schema_extra=AUTO
    )
    rslora: bool = Field(default=False, description="Divide by the root of the rank, which large ranks need.")
    dropout: float = Field(
        default=0.0, ge=0, lt=1, description="Part of the adapter's inputs that is left out at random."
    )
    targets: Annotated[tuple[Word, ...], BeforeValidator(_listed)] = Field(
        default=("all-linear",),
        min_length=1,
        max_length=64,
        description="The linear layers that get an adapter: `all-linear`, or names such as `q_proj, v_proj`.",
    )

    # How long.
    epochs: float = Field(
        default=3.0, gt=0, le=10_000, description="How often the data is gone through.", json_schema_extra=AUTO
    )
    steps: int = Field(
        default=0, ge=0, le=MAX_STEPS, description="Stop after so many steps, whatever `epochs` says. 0 is off."
    )
    batch_tokens: int = Field(
        default=2048,
        ge=1,
        le=MAX_TOKENS,
        description="Most tokens that are computed at once; memory depends on it.",
        json_schema_extra=AUTO,
    )
    batch_rows: int = Field(
        default=0, ge=0, le=65536, description="Most rows that are computed at once. 0 is any number."
    )
    accumulation: int = Field(
        default=1, ge=1, le=65536, description="How many batches make a step.", json_schema_extra=AUTO
    )

    # How fast.
    lr: float = Field(default=2e-4, gt=0, le=1, description="Learning rate at its highest.", json_schema_extra=AUTO)
    lr_scale: float = Field(
        default=1.0, gt=0, le=100, description="Multiplies `lr`, whether it was given or chosen by the data."
    )
    schedule: Literal["cosine", "linear", "constant"] = Field(
        default="cosine", description="How the learning rate falls after the warm-up."
    )
    warmup: float = Field(
        default=0.03, ge=0, le=1, description="Part of the steps in which the rate rises.", json_schema_extra=AUTO
    )
    weight_decay: float = Field(default=0.0, ge=0, le=1, description="How much weights shrink, in parts of the rate.")
    max_grad_norm: float = Field(
        default=1.0, ge=0, le=1000, description="Longer gradients are shortened to it. 0 is off."
    )
    optimizer: Literal["auto", "adamw", "adamw_8bit", "paged_adamw", "paged_adamw_8bit"] = Field(
        default="auto", description="auto is paged_adamw on CUDA and adamw elsewhere; the 8-bit ones need CUDA."
    )

    # How data becomes batches.
    max_length: int = Field(
        default=2048,
        ge=8,
        le=MAX_TOKENS,
        description="Most tokens of a sample. Longer ones are never cut.",
    )
    too_long: Literal["refuse", "drop"] = Field(
        default="refuse", description="What becomes of longer samples: an error before the start, or left out and told."
    )
    packing: Literal["auto", "pack", "group", "single"] = Field(
        default="auto",
        description="pack joins samples that do not see each other, group puts like lengths side by side, single takes "
        "one at a time. auto is pack where the model is known to keep samples apart, else group.",
    )
    last_turn_only: bool = Field(default=False, description="Learn only the last answer of a conversation.")
    thinking: bool | None = Field(
        default=None, description="The `enable_thinking` that requests will send. Left out, they send none."
    )
    seed: int = Field(default=0, ge=0, le=2**32 - 1, description="Order, split and first weights follow from it.")

    # How it is watched.
    eval_steps: int = Field(
        default=0,
        ge=0,
        le=MAX_STEPS,
        description="Steps between measurements. 0 is ten in all.",
    )
    save_steps: int = Field(default=0, ge=0, le=MAX_STEPS, description="Steps between checkpoints. 0 is ten in all.")
    keep_checkpoints: int = Field(
        default=3, ge=1, le=1000, description="How many checkpoints are kept, besides the best."
    )
    patience: int = Field(
        default=3, ge=0, le=1000, description="Stop after so many measurements without a better one. 0 is off."
    )
    prompts: Texts = Field(
        default=(), max_length=64, description="Questions that are answered before, during and after training."
    )
    answer_tokens: int = Field(default=128, ge=1, le=4096, description="Most tokens of such an answer.")

    # Where.
    priority: Literal["background", "balanced", "training"] = Field(
        default="balanced",
        description="Who waits: background trains while nobody asks, balanced in between, training at full speed.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="auto is CUDA when there is a usable GPU."
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="Numbers of the computation. auto is bfloat16 where the GPU has it, else float32."
    )
    gradient_checkpointing: bool = Field(default=True, description="Compute twice rather than remember: less memory.")
    attention: Literal["auto", "sdpa", "flash"] = Field(
        default="auto", description="auto is FlashAttention where it is installed and fits, else SDPA."
    )
    distributed: Literal["none", "ddp", "zero2", "zero3"] = Field(
        default="none", description="Over several GPUs: ddp repeats the base on each, ZeRO splits it (not a 4-bit one)."
    )
    processes: int = Field(default=1, ge=1, le=1024, description="How many processes, one a GPU.")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.method == "qlora" and self.codec == "none":
            raise ValueError("codec=none is an unquantised base: take method=lora")
        if self.method in ("lora", "full") and self.codec in ("int4", "nf4"):
            raise ValueError(f"method={self.method} trains on unquantised weights: take method=qlora or codec=none")
        if self.distributed in ("zero2", "zero3") and self.on_4_bits:
            raise ValueError(f"distributed={self.distributed} cannot split 4-bit weights: take ddp, or method=lora")
        if self.processes > 1 and self.distributed == "none":
            raise ValueError("several processes need distributed=ddp, zero2 or zero3")
        if self.validation and self.validation_split:
            raise ValueError("validation and validation_split exclude each other")
        return self

    @property
    def on_4_bits(self) -> bool:
        """Whether the base's weights are 4-bit ones while it trains."""
        return self.codec in ("int4", "nf4") or (self.codec == "auto" and self.method in ("qlora", "dora"))

    @property
    def chosen(self) -> frozenset[str]:
        """The keys that were given, which nothing chooses for the user."""
        return frozenset(self.model_fields_set)


def auto_keys() -> frozenset[str]:
    """The keys that are chosen by the data where they are not given."""
    return frozenset(key for key in Recipe.model_fields if is_auto(key))


def is_auto(key: str) -> bool:
    """Whether the data chooses this key where it is not given."""
    extra = Recipe.model_fields[key].json_schema_extra
    return isinstance(extra, dict) and bool(extra.get("auto"))
