"""Hooks."""

from treenail.kernel import Adapter

_A = "treenail.adapters"

HOOKS: tuple[Adapter, ...] = (
    Adapter(
        port="hook",
        name="timer",
        target=f"{_A}.hooks:TimerHook",
        aliases=("TimerHook",),
        summary="times steps and the wait for data",
    ),
    Adapter(
        port="hook",
        name="logger",
        target=f"{_A}.hooks:LoggerHook",
        summary="log lines every few steps; stops on a loss that is not finite",
    ),
    Adapter(
        port="hook",
        name="progress",
        target=f"{_A}.hooks:ProgressHook",
        aliases=("ProgressHook",),
        requires=("rich",),
        install="treenail[train]",
        summary="a progress bar on terminals",
    ),
    Adapter(
        port="hook",
        name="schedule",
        target=f"{_A}.hooks:ScheduleHook",
        aliases=("ScheduleHook",),
        summary="steps learning-rate schedulers",
    ),
    Adapter(
        port="hook",
        name="checkpoint",
        target=f"{_A}.hooks:CheckpointHook",
        summary="asks for checkpoints every few epochs or steps",
    ),
    Adapter(
        port="hook",
        name="best",
        target=f"{_A}.hooks:BestHook",
        aliases=("BestHook",),
        summary="keeps the checkpoint with the best metric",
    ),
    Adapter(
        port="hook",
        name="stragglers",
        target=f"{_A}.hooks:StragglerHook",
        aliases=("StragglerHook",),
        summary="reports the rank that the others wait for",
    ),
    Adapter(
        port="hook",
        name="averaging",
        target=f"{_A}.hooks:AveragingHook",
        aliases=("AveragingHook",),
        summary="averages the weights after each step",
    ),
    Adapter(
        port="hook",
        name="nonfinite",
        target=f"{_A}.hooks:NonFiniteHook",
        aliases=("NonFiniteHook",),
        summary="stops, skips or goes back where a loss or gradients are not finite",
    ),
    *(
        Adapter(port="hook", name=name, target=f"{_A}.hooks.compat:{name}", summary=f"mmengine's: {summary}")
        for name, summary in (
            ("CheckpointHook", "asks for checkpoints"),
            ("RuntimeInfoHook", "tells the message hub how the run goes"),
            ("IterTimerHook", "times iterations, for the message hub and the log"),
            ("DistSamplerSeedHook", "nothing is left of it to do"),
            ("LoggerHook", "log lines in mmengine's format, at its times"),
            ("ParamSchedulerHook", "steps schedulers, unless another hook does"),
            ("SyncBuffersHook", "gives all ranks the mean of their buffers"),
            ("EmptyCacheHook", "gives a GPU's unused memory back"),
            ("NaiveVisualizationHook", "draws what a model predicts in a test"),
            ("EarlyStoppingHook", "stops a training that no longer improves"),
        )
    ),
    *(
        Adapter(
            port="hook",
            name=name,
            target=f"{_A}.hooks:{target}",
            # What mmengine has a class of that name for means mmengine's.
            aliases=() if name in ("early_stopping", "profiler") else (target,),
            summary=summary,
        )
        for name, target, summary in (
            ("early_stopping", "EarlyStoppingHook", "stops a training that no longer improves"),
            ("throughput", "ThroughputHook", "samples, steps and tokens a second, and model FLOPs utilisation"),
            ("memory", "MemoryHook", "memory of the process and of the GPU, and a limit"),
            ("histograms", "HistogramHook", "statistics and histograms of gradients and weights"),
            ("lr_watch", "LearningRateWatchHook", "alarm where a learning rate is 0, jumps or is not finite"),
            ("profiler", "ProfilerHook", "a trace of some steps by torch's profiler"),
            ("notify", "NotifyHook", "e-mail and webhook at the end, a stop or a failure"),
            ("requeue", "RequeueHook", "puts a Slurm job that was stopped back into the queue"),
        )
    ),
    Adapter(
        port="hook",
        name="probe",
        target=f"{_A}.hooks:ProbeHook",
        aliases=("ProbeHook", "ProbeDataHook"),
        summary="values that modules register, written every few steps",
    ),
    Adapter(
        port="hook",
        name="EMAHook",
        target=f"{_A}.hooks:EMAHook",
        summary="mmengine's: averages the weights after each step",
    ),
    Adapter(
        port="log_processor",
        name="LogProcessor",
        target=f"{_A}.logging.compat:LogProcessor",
        summary="mmengine's: makes log lines of the message hub",
    ),
)
