# raises: HookError: a hook named 'BestHook' is already attached; attach it under another name
"""Two hooks of one class under its name: a checkpoint could not tell their states apart."""

from treenail.adapters.hooks import BestHook
from treenail.kernel import Engine

engine = Engine()
engine.attach(BestHook("val/accuracy"))
engine.attach(BestHook("val/loss", mode="min"))
