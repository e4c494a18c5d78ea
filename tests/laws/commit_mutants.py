"""Engines whose runs and commits are each wrong in one way."""

from collections.abc import Mapping

from treenail.kernel import Engine, Loop, Stateful


class SavesAtOnce(Engine):
    def request_checkpoint(self, reason: str, *pointers: str) -> None:
        super().request_checkpoint(reason, *pointers)
        self._save()


class SavesAtEveryCommit(Engine):
    def commit(self, *, steps: int = 0, epochs: int = 0) -> None:
        requests = list(self._requests)
        super().commit(steps=steps, epochs=epochs)
        self._requests = requests


class SavesAtStepsOnly(Engine):
    def commit(self, *, steps: int = 0, epochs: int = 0) -> None:
        requests, self._requests = self._requests, self._requests if steps else []
        super().commit(steps=steps, epochs=epochs)
        if not steps:
            self._requests = requests


class SavesBeforeItCounts(Engine):
    def commit(self, *, steps: int = 0, epochs: int = 0) -> None:
        super().commit()
        super().commit(steps=steps, epochs=epochs)


class SavesEachRequest(Engine):
    def _save(self) -> None:
        requests, self._requests = self._requests, []
        for request in requests:
            self._requests = [request]
            super()._save()


class KeepsTheLastRequest(Engine):
    def request_checkpoint(self, reason: str, *pointers: str) -> None:
        self._requests = [(reason, pointers)]


class ForgetsRequestsOfASave(Engine):
    def _save(self) -> None:
        super()._save()
        self._requests = []


class SavesUntilNobodyAsks(Engine):
    def commit(self, *, steps: int = 0, epochs: int = 0) -> None:
        super().commit(steps=steps, epochs=epochs)
        if self._requests:
            super().commit()


class TellsHooksAfterTheSave(Engine):
    def _save(self) -> None:
        fire, self.points.before_save_checkpoint = self.points.before_save_checkpoint, None
        super()._save()
        self.points.before_save_checkpoint = fire
        if fire is not None:
            fire(self, self.state_dict())


class ShowsHooksACopy(Engine):
    def _save(self) -> None:
        fire = self.points.before_save_checkpoint
        if fire is not None:
            self.points.before_save_checkpoint = lambda engine, tree: fire(engine, dict(tree))
        super()._save()
        self.points.before_save_checkpoint = fire


class ForgetsHooks(Engine):
    def _stateful_hooks(self) -> dict[str, Stateful]:
        return {}


class RestoresByPosition(Engine):
    """Takes hook states in the order of attachment, whatever they are called."""

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        states = state_dict["hooks"]
        if isinstance(states, dict) and len(states) == len(own := self._stateful_hooks()):
            state_dict = state_dict | {"hooks": dict(zip(own, states.values(), strict=True))}
        super().load_state_dict(state_dict)


class TakesAnyHooks(Engine):
    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        states, own = state_dict["hooks"], self._stateful_hooks()
        if isinstance(states, dict):
            known = {name: states.get(name, hook.state_dict()) for name, hook in own.items()}
            super().load_state_dict(state_dict | {"hooks": known})


class DeliversAtOnce(Engine):
    def publish(self, values: Mapping[str, float]) -> None:
        super().publish(values)
        self._deliver()


class DeliversBeforeItCounts(Engine):
    def commit(self, *, steps: int = 0, epochs: int = 0) -> None:
        self._deliver()
        super().commit(steps=steps, epochs=epochs)


class DeliversAgain(Engine):
    def _deliver(self) -> None:
        records = list(self._records)
        super()._deliver()
        self._records = records


class DeliversTheLast(Engine):
    def publish(self, values: Mapping[str, float]) -> None:
        self._records = [values]


class TellsOneSink(Engine):
    def _deliver(self) -> None:
        sinks, self._sinks = self._sinks, self._sinks[:1]
        super()._deliver()
        self._sinks = sinks


class CommitsWhatBroke(Engine):
    """Tidies up after an exception by a last commit."""

    def run(self, *loops: Loop, resume: dict[str, object] | None = None) -> None:
        try:
            super().run(*loops, resume=resume)
        except BaseException:
            self.commit()
            raise


class FiresBeforeRunForEachLoop(Engine):
    def run(self, *loops: Loop, resume: dict[str, object] | None = None) -> None:
        for loop in loops:
            super().run(loop, resume=resume)


class SkipsAfterRun(Engine):
    def run(self, *loops: Loop, resume: dict[str, object] | None = None) -> None:
        fire, self.points.after_run = self.points.after_run, None
        super().run(*loops, resume=resume)
        self.points.after_run = fire


class GoesOnAfterAStop(Engine):
    def run(self, *loops: Loop, resume: dict[str, object] | None = None) -> None:
        super().run(resume=resume)
        for loop in loops:
            loop.run(self)


class KeepsTheLastReason(Engine):
    def request_stop(self, reason: str) -> None:
        self.stop_reason = reason


class CountsCommitsAnew(Engine):
    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        if isinstance(own := state_dict["engine"], dict):
            super().load_state_dict(state_dict | {"engine": own | {"commits": 0}})


class ResumesBeforeTheHooks(Engine):
    def run(self, *loops: Loop, resume: dict[str, object] | None = None) -> None:
        if resume is not None:
            self.load_state_dict(resume)
        super().run(*loops)


class ResumesNothing(Engine):
    def run(self, *loops: Loop, resume: dict[str, object] | None = None) -> None:
        super().run(*loops)
