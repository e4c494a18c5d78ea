"""The config of a whole run: frozen Structs, keyword-only, unknown fields forbidden.

The same Structs are filled from YAML (`treenail.adapters.config`) and from Python, where mypy checks that each slot
holds the right kind of component.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, runtime_checkable

from msgspec import Meta, Struct
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from treenail.contracts.averaging import Averager
from treenail.contracts.parameters import ParameterGroups
from treenail.contracts.sampling import BatchSampler
from treenail.contracts.step import MeasuresSamples, TakesPredictions, TrainWork
from treenail.contracts.updates import LossSum, Updater
from treenail.kernel import FileBackend, Hook, Late, Loop, Metric, Sampler, Spec, VisBackend

Loss = Callable[[Tensor, Tensor], Tensor | LossSum]
"""(outputs [batch, …], targets [batch, …]) → 0-dim mean loss, or a sum with what it was summed over."""


Collate = Callable[[list[Any]], object]  # Any: samples are what the dataset has
"""A list of samples → a batch."""


PriorityName = Literal[
    "HIGHEST", "VERY_HIGH", "HIGH", "ABOVE_NORMAL", "NORMAL", "BELOW_NORMAL", "LOW", "VERY_LOW", "LOWEST"
]
"""mmengine's names of hook priorities, from 0 to 100."""


@runtime_checkable
class Dataset(Protocol):
    """Samples by index; anything that torch's DataLoader takes as a map-style dataset."""

    def __len__(self) -> int:
        """Return how many samples there are."""
        ...

    def __getitem__(self, index: int, /) -> object:
        """Return a sample: (input, target)."""
        ...


DEVICE_TYPES = ("cpu", "cuda", "mps", "xpu", "meta", "hpu", "mtia", "xla", "ipu", "vulkan", "maia", "privateuseone")
"""What torch names devices of."""

_DEVICE = rf"^(auto|({'|'.join(DEVICE_TYPES)})(:[0-9]+)?)$"


class Samples(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A dataset and how it is drawn.

    Args:
        dataset: The samples.
        batch_size: Samples of a batch, of all ranks together.
        sampler: Their order; its first argument is the dataset. None: random for training, sequential else.
        batch_sampler: Makes whole batches, in the place of a sampler; its first argument is the dataset, and it gets
            batch_size and drop_last where it takes them.
        num_workers: Loader processes; 0 loads in the training process. Results do not depend on it.
        drop_last: Leave out an incomplete last batch.
        collate: How samples become a batch: stacked in tensors, or listed, for images of unlike sizes and whatever else a model
            puts together itself; or what makes a batch of a list of samples.
    """

    dataset: Spec[Dataset]
    batch_size: Annotated[int, Meta(ge=1)]
    sampler: Late[Dataset, Sampler] | None = None
    batch_sampler: Late[Dataset, BatchSampler] | None = None
    num_workers: Annotated[int, Meta(ge=0, le=1024)] = 0
    drop_last: bool = False
    collate: Literal["stack", "list"] | Spec[Collate] = "stack"


class Data(Samples, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Data to train on."""


class Evaluation(Samples, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Data to evaluate on, and what to measure besides the loss.

    Args:
        metrics: What to measure.
        precision: What the model computes in, by automatic mixed precision; metrics measure what it returns.
    """

    metrics: tuple[Spec[Metric] | Spec[MeasuresSamples] | Spec[TakesPredictions], ...] = ()
    precision: Literal["float32", "bfloat16", "float16"] = "float32"


class Prediction(Samples, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Data to predict on, with `treenail predict`.

    Args:
        precision: What the model computes in, by automatic mixed precision.
        hooks: By name: what else happens meanwhile, at the points of `treenail.contracts.PredictHook`.
    """

    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    hooks: Mapping[str, Spec[Hook]] = {}


class Schedule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A learning-rate scheduler and when it steps.

    Args:
        scheduler: Any of torch's, or one with its interface; its first argument is the optimizer.
        every: Whether it steps after each training step or after each epoch. None: as its ``by_epoch`` says; one that has
            none, such as torch's, after each epoch. What contradicts that, or stands beside a metric, is refused.
        metric: Name of the validation metric that its `step` takes, for ReduceLROnPlateau; it then steps after each
            validation.
        optimizer: Name of its optimizer where a run has several; None: such a scheduler for each of them.
    """

    scheduler: Late[Optimizer, LRScheduler]
    every: Literal["step", "epoch"] | None = None
    metric: str | None = None
    optimizer: str | None = None


class Checkpoints(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How checkpoints are saved, and which of them stay.

    Args:
        keep_last: How many stay; those that a pointer (``latest``, ``best``) leads to stay besides. None keeps all.
        keep_every: Of every so many steps, the first checkpoint stays for ever. None: none does for that.
        asynchronous: The training goes on while its copied state is written; the memory of the copy stays in use. False waits.
    """

    keep_last: Annotated[int, Meta(ge=1)] | None = 3
    keep_every: Annotated[int, Meta(ge=1)] | None = None
    asynchronous: bool = True


class LoadFrom(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Weights that the model begins with; the training begins at zero.

    Args:
        path: A path or URI: a checkpoint (its directory, or a pointer such as ``…/checkpoints/best``), a .safetensors file or
            its index, a .pt, .pth or .ckpt file (mmengine's and Lightning's too), a model's directory on a hub.
        part: Where in it the weights are, parts of parts after dots: ``averages``, ``ema_state_dict``. None: where checkpoints
            of its kind have the model's.
        prefix: Take the weights below it only, and strip it: ``backbone``.
        revise_keys: (pattern, replacement) pairs of regular expressions that make the model's names of those of the file.
        exclude: Shell-style patterns of the model's names that are not loaded, and need not be there: ``head.*``.
        strict: Names that are missing or unexpected are an error; else they are reported.
        allow_shape_mismatch: Weights of another shape are left out and reported; else they are an error.
    """

    path: Annotated[str, Meta(min_length=1)]
    part: str | None = None
    prefix: str = ""
    revise_keys: tuple[tuple[str, str], ...] = ((r"^module\.", ""),)
    exclude: tuple[str, ...] = ()
    strict: bool = True
    allow_shape_mismatch: bool = False


@runtime_checkable
class ParallelModule(Protocol):
    """What is called in training in the place of the bare module; every `nn.Module` is one."""

    def __call__(self, inputs: Tensor, /) -> Tensor:
        """Return the outputs [batch, …] for inputs [batch, …]."""
        ...


class Distributed(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a run is spread over processes; what it computes does not depend on it, but for rounding.

    Args:
        launcher: Whose environment variables say which rank a process is; auto recognises them, none ignores them.
        processes: How many `treenail train` starts on this machine where no launcher did.
        backend: Of torch.distributed: gloo, nccl, mpi, ucc …; None chooses NCCL for GPUs, gloo else.
        timeout: Seconds that a rank waits for another one.
        parallel: How the model is trained by many ranks; its first argument is the bare model. None: data_parallel.
        diff_rank_seed: Every rank draws its own random numbers (dropout masks) once the model is built; false: all the same.
        rank_logs: Every rank writes a log of its own, log.rank1.jsonl …, for debugging.
        stragglers: Report a rank that needs so many times what the median rank does until they meet; null is silent.
    """

    launcher: Literal["auto", "none", "pytorch", "slurm", "mpi", "spawn"] = "auto"
    processes: Annotated[int, Meta(ge=1, le=1024)] = 1
    backend: str | None = None
    timeout: Annotated[float, Meta(gt=0, le=1e7)] = 1800.0
    parallel: Late[nn.Module, ParallelModule] | None = None
    diff_rank_seed: bool = True
    rank_logs: bool = False
    stragglers: Annotated[float, Meta(gt=1)] | None = 1.5


class ScaleLr(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Scales the learning rates from the batch size that they were found with to that of the training data.

    Args:
        base_batch_size: Samples of an update for which the optimizer's learning rates are meant; compared with
            ``train.batch_size``, which is of all ranks together, accumulation included.
        rule: linear for SGD; sqrt, the square root, for Adam and its like.
    """

    base_batch_size: Annotated[int, Meta(ge=1)]
    rule: Literal["linear", "sqrt"] = "linear"


class Recompute(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Modules whose activations are not kept, but computed again in the backward pass: time for memory.

    Args:
        classes: Names of their classes, such as ``TransformerEncoderLayer``.
        modules: Their names in the model; ``*`` stands for one part: ``layers.*``.
    """

    classes: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()


class Compile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How `torch.compile` compiles the model.

    Args:
        mode: What it optimises for.
        fullgraph: Refuse what cannot be compiled as a whole.
        dynamic: Whether sizes vary; None finds out.
    """

    mode: Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"] = "default"
    fullgraph: bool = False
    dynamic: bool | None = None


class Cache(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Local copies of what is read from other stores, shared by the processes of a machine.

    Args:
        folder: Where they lie, on a local disk.
        max_bytes: How much they may take; those not used for longest go first.
        max_age: Seconds for which a copy is used without asking the store whether the file changed.
    """

    folder: Annotated[str, Meta(min_length=1)]
    max_bytes: Annotated[int, Meta(ge=1)]
    max_age: Annotated[float, Meta(ge=0)] = 0.0


class Files(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the files of a run lie: what a deployment changes without touching paths in the rest of the config.

    Args:
        mounts: What lies at a prefix, a directory or a URI: another directory or URI, or a backend whose root stands for
            the prefix. The longest prefix counts.
        schemes: How the backends of a URI's scheme are made; the first argument of each is its root's URI.
        cache: Keeps local copies of remote files.
        mirrors: Prefixes whose files are kept, once read, in a local directory under the same names.
        checkpoints: Directory or URI of this run's checkpoints, which no other run has. None keeps them in the work
            directory.
    """

    mounts: Mapping[str, str | Spec[FileBackend]] = {}
    schemes: Mapping[str, Late[str, FileBackend]] = {}
    cache: Cache | None = None
    mirrors: Mapping[str, str] = {}
    checkpoints: str | None = None


class Limits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ends a run before its own end, or makes it small.

    A run that reaches a limit of time or steps stops after the step at hand, with a checkpoint, and can be resumed.

    Args:
        max_seconds: Seconds of this attempt, from its beginning on; what earlier attempts took does not count, as in the time
            slices of a cluster.
        max_steps: Training steps of the whole run, those before a resume included.
        train_batches: Batches of a training epoch at most, its first ones.
        val_batches: Batches of each set of a validation at most.
        test_batches: Batches of each set of a test at most.
        sanity_batches: Batches of each set that are validated before the first step of a new run, so that a mistake there shows
            at once. Nothing is told, and the run is what it would be without; the validation data is built twice. 0: none.
    """

    max_seconds: Annotated[float, Meta(gt=0, le=1e7)] | None = None
    max_steps: Annotated[int, Meta(ge=1)] | None = None
    train_batches: Annotated[int, Meta(ge=1)] | None = None
    val_batches: Annotated[int, Meta(ge=1)] | None = None
    test_batches: Annotated[int, Meta(ge=1)] | None = None
    sanity_batches: Annotated[int, Meta(ge=0)] = 0


class CustomImports(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Modules that are imported before components are looked up.

    Args:
        imports: The modules; what their registries, and their ``ADAPTERS``, hold can then be named.
        allow_failed_imports: Go on without a module that cannot be imported.
    """

    imports: tuple[str, ...]
    allow_failed_imports: bool = False


class Run(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole training run.

    Args:
        model: What is trained: any module that takes a batch of inputs.
        train: The training data.
        loop: How to train; its first argument is the run's `TrainWork`.
        optimizer: Its first argument is the model's parameters. Several, by names of parts of the model, for one that has a
            ``train_step`` of its own.
        loss: (outputs, targets) → mean loss, or a sum with what it was summed over. None where the model has a
            ``train_step`` that does it all.
        parameters: Which parameters are trained, in groups with learning rates and weight decays of their own; its first
            argument is the model. None: all, with the optimizer's settings.
        updates: How gradients come to the optimizer: precision, accumulation, clipping; its first argument is the optimizer. By
            name for several. None: as they are.
        val: Data for validation between epochs; several by name, whose results are ``val/NAME/accuracy``.
        test: Data for the test after training; several by name.
        predict: Data for `treenail predict`.
        scale_lr: Scale the learning rates to the batch size. None leaves them as they are.
        recompute: Modules whose activations are computed again in the backward pass, which saves memory.
        compile: Compile the model by `torch.compile`. None runs it as it is written.
        load_from: Weights that the model begins with. None: those that it is built with. A resumed run has those of its
            checkpoint.
        averaging: Averages of the weights, which validation, test and export use; its first argument is the model.
        schedules: Learning-rate schedules.
        hooks: By name. They are added to the default hooks (`timer`, `logger`, `progress`, `schedule`, `checkpoint`); an
            entry of the same name replaces a default hook, null removes it.
        priorities: Of hooks by name, in the place of their own, as numbers or mmengine's names: ``VERY_HIGH`` is 10. A hook
            with a smaller one runs first.
        vis: Where curves go, by name; the first argument of each is its directory. Defaults to JSON lines.
        checkpoints: How checkpoints are saved, and which stay.
        limits: What ends the run before its own end, or makes it small.
        seed: Everything random in the run follows from it.
        device: ``"auto"`` (a GPU if there is one), or as torch names it.
        distributed: How the run is spread over processes.
        files: Where files lie.
        threads: CPU threads of an operator, torch's default when None. A given number makes results on the CPU independent
            of the machine's cores; a small model is fastest with 1.
        deterministic: Use only algorithms of torch that give the same result each time, on a GPU, too; an operator without one
            is an error, or with warn a warning.
        cudnn_benchmark: Let cuDNN try which algorithm of a convolution is fastest for each size, which pays where sizes recur
            and may give other bits each time; not with deterministic.
        detect_anomaly: Let torch find the operator whose gradient became NaN; slow.
        detect_anomalous_params: Warn of parameters that the loss of the first step does not depend on.
        imports: Prefixes below which ``type: package.module:name`` may import components.
        custom_imports: Modules below those prefixes that are imported first, so that what they register can be named.
    """

    model: Spec[nn.Module]
    train: Data
    loop: Late[TrainWork, Loop]
    optimizer: Late[Iterable[nn.Parameter], Optimizer] | Mapping[str, Late[Iterable[nn.Parameter], Optimizer]]
    loss: Spec[Loss] | None = None
    parameters: Late[nn.Module, ParameterGroups] | None = None
    updates: Late[Optimizer, Updater] | Mapping[str, Late[Optimizer, Updater]] | None = None
    scale_lr: ScaleLr | None = None
    recompute: Recompute | None = None
    compile: Compile | None = None
    load_from: LoadFrom | None = None
    averaging: Late[nn.Module, Averager] | None = None
    val: Evaluation | Mapping[str, Evaluation] | None = None
    test: Evaluation | Mapping[str, Evaluation] | None = None
    predict: Prediction | None = None
    schedules: tuple[Schedule, ...] = ()
    hooks: Mapping[str, Spec[Hook] | None] = {}
    priorities: Mapping[str, int | PriorityName] = {}
    vis: Mapping[str, Late[Path, VisBackend] | None] = {}
    checkpoints: Checkpoints = Checkpoints()
    limits: Limits = Limits()
    seed: Annotated[int, Meta(ge=0)] = 0
    device: Annotated[str, Meta(pattern=_DEVICE)] = "auto"
    distributed: Distributed = Distributed()
    files: Files = Files()
    threads: Annotated[int, Meta(ge=1, le=1024)] | None = None
    deterministic: bool | Literal["warn"] = False
    cudnn_benchmark: bool = False
    detect_anomaly: bool = False
    detect_anomalous_params: bool = False
    imports: tuple[str, ...] = ()
    custom_imports: tuple[str, ...] | CustomImports = ()
