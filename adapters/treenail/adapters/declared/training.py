"""What trains: loops, losses, optimizers, schedules, averages, ranks."""

from treenail.kernel import Adapter, Namespace

_A = "treenail.adapters"

TRAINING: tuple[Adapter | Namespace, ...] = (
    Adapter(
        port="loop",
        name="epochs",
        target=f"{_A}.loops:EpochLoop",
        aliases=("EpochLoop", "EpochBasedTrainLoop"),
        summary="train for a number of epochs, validate between them",
    ),
    Adapter(
        port="loop",
        name="steps",
        target=f"{_A}.loops:StepLoop",
        aliases=("StepLoop",),
        summary="train for a number of steps, validate every so many",
    ),
    Adapter(
        port="loop",
        name="IterBasedTrainLoop",
        target=f"{_A}.loops:IterBasedTrainLoop",
        summary="mmengine's: steps under its argument's name",
    ),
    Adapter(
        port="communicator",
        name="single",
        target=f"{_A}.comm:SingleProcess",
        aliases=("SingleProcess",),
        summary="a world of one process",
    ),
    Adapter(
        port="communicator",
        name="torch",
        target=f"{_A}.comm:TorchCommunicator",
        aliases=("TorchCommunicator",),
        summary="processes of torch.distributed: gloo, NCCL, any backend",
    ),
    Adapter(
        port="parallel",
        name="data_parallel",
        target=f"{_A}.parallel:data_parallel",
        aliases=("DistributedDataParallel", "MMDistributedDataParallel"),
        summary="DDP: every rank has the whole model",
    ),
    Adapter(
        port="parallel",
        name="separate_data_parallel",
        target=f"{_A}.parallel:separate_data_parallel",
        aliases=("MMSeparateDistributedDataParallel",),
        summary="DDP for each sub-module by itself, as GANs need it",
    ),
    Adapter(
        port="parallel",
        name="fully_sharded",
        target=f"{_A}.parallel:fully_sharded",
        aliases=("FullyShardedDataParallel", "MMFullyShardedDataParallel"),
        summary="FSDP2: every rank keeps a part of each parameter",
    ),
    Adapter(
        port="parallel",
        name="tensor_parallel",
        target=f"{_A}.parallel:tensor_parallel",
        summary="layers split over ranks (DTensor)",
    ),
    Adapter(
        port="averaging",
        name="ema",
        target=f"{_A}.averaging:exponential_average",
        aliases=("ExponentialMovingAverage",),
        summary="exponential moving average of the weights",
    ),
    Adapter(
        port="averaging",
        name="annealed_ema",
        target=f"{_A}.averaging:annealed_average",
        aliases=("MomentumAnnealingEMA",),
        summary="EMA whose momentum begins large",
    ),
    Adapter(
        port="averaging",
        name="swa",
        target=f"{_A}.averaging:uniform_average",
        aliases=("StochasticWeightAverage",),
        summary="mean of the weights (SWA)",
    ),
    Adapter(
        port="parameters",
        name="parameter_groups",
        target=f"{_A}.optim:parameter_groups",
        summary="by what parameters are and what they are called, and freezing",
    ),
    Adapter(
        port="parameters",
        name="layer_decay",
        target=f"{_A}.optim:layer_decay",
        summary="learning rates that fall from the head to the input",
    ),
    Adapter(
        port="updates",
        name="optim_wrapper",
        target=f"{_A}.optim:OptimWrapper",
        summary="updates with a precision, accumulation and clipping",
    ),
    Adapter(
        port="updates",
        name="OptimWrapper",
        target=f"{_A}.optim.compat:optim_wrapper",
        summary="mmengine's: updates with accumulation and clipping",
    ),
    Adapter(
        port="updates",
        name="AmpOptimWrapper",
        target=f"{_A}.optim.compat:amp_optim_wrapper",
        summary="mmengine's: updates in automatic mixed precision",
    ),
    Adapter(
        port="loss",
        name="token_cross_entropy",
        target=f"{_A}.optim:TokenCrossEntropy",
        aliases=("TokenCrossEntropy",),
        summary="cross entropy over all tokens that count, however batches are split",
    ),
    *(
        Adapter(port="module", name=name, target=f"{_A}.models:{target}", aliases=(target,), summary=summary)
        for name, target, summary in (
            ("data_preprocessor", "BaseDataPreprocessor", "moves batches of any structure to the model's device"),
            ("image_preprocessor", "ImgDataPreprocessor", "images to one tensor: channels, normalisation, padding"),
            ("preprocessed", "Preprocessed", "a plain model behind a preprocessor of its inputs"),
        )
    ),
    *(
        Adapter(port="weight_initializer", name=name, target=f"{_A}.models:{name}Init", summary=summary)
        for name, summary in (
            ("Constant", "fills weights"),
            ("Xavier", "normal or uniform, by the numbers of inputs and outputs (Glorot)"),
            ("Normal", "normal"),
            ("TruncNormal", "normal without its tails"),
            ("Uniform", "uniform"),
            ("Kaiming", "normal or uniform, by the number of inputs or outputs (He)"),
            ("Caffe2Xavier", "uniform, by the number of inputs"),
            ("Pretrained", "weights of a checkpoint"),
        )
    ),
    Namespace(port="module", module="torch.nn", base="torch.nn:Module"),
    Namespace(port="loss", module="torch.nn.modules.loss", base="torch.nn:Module", match=".*Loss"),
    Namespace(port="loss", module="torch.nn.functional", match="(.*_)?(loss|cross_entropy|with_logits|kl_div)"),
    Namespace(port="optimizer", module="torch.optim", base="torch.optim:Optimizer"),
    Adapter(
        port="optimizer",
        name="zero_redundancy",
        target=f"{_A}.parallel:zero_redundancy",
        aliases=("ZeroRedundancyOptimizer",),
        summary="ZeRO: each rank keeps a share of an optimizer's states",
    ),
    *(
        Adapter(port="scheduler", name=name, target=f"{_A}.schedule:{target}", summary=summary)
        for name, target, summary in (
            ("constant", "Constant", "a factor until the interval's last step"),
            ("linear", "Linear", "along a line: a warm-up, or a decay"),
            ("cosine", "Cosine", "half a cosine down to a floor"),
            ("cosine_restarts", "CosineRestarts", "half cosines one after another, each from a height of its own"),
            ("exponential", "Exponential", "gamma once more each step"),
            ("step", "Step", "gamma once more every so many steps"),
            ("multi_step", "MultiStep", "gamma once more at each milestone"),
            ("polynomial", "Polynomial", "a power of the steps left, down to a floor"),
            ("one_cycle", "OneCycle", "up to a maximum and far down"),
            ("wsd", "WarmupStableDecay", "warm-up, stable, decay"),
            ("reduce_on_plateau", "ReduceOnPlateau", "reduces when a metric stops improving"),
        )
    ),
    *(
        Adapter(
            port="scheduler",
            name=f"mmengine.{family}{suffix}",
            target=f"{_A}.schedule.compat:{family}{suffix}",
            # Those that torch has, too, mean torch's.
            aliases=(f"{family}{suffix}",) if suffix != "LR" or lacking else (),
            summary=f"mmengine's, of {what}",
        )
        for family, lacking in (
            ("Constant", False),
            ("CosineAnnealing", False),
            ("CosineRestart", True),
            ("Exponential", False),
            ("Linear", False),
            ("MultiStep", False),
            ("OneCycle", False),
            ("Poly", True),
            ("ReduceOnPlateau", True),
            ("Step", False),
        )
        for suffix, what in (
            ("LR", "the learning rate"),
            ("Momentum", "the momentum"),
            ("ParamScheduler", "any parameter"),
        )
        if (family, suffix) != ("OneCycle", "Momentum")  # there it has none
    ),
    Namespace(port="scheduler", module="torch.optim.lr_scheduler", base="torch.optim.lr_scheduler:LRScheduler"),
)
