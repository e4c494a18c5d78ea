"""Metrics, curves and exports."""

from treenail.kernel import Adapter

_A = "treenail.adapters"

EVALUATION: tuple[Adapter, ...] = (
    Adapter(
        port="metric",
        name="accuracy",
        target=f"{_A}.evaluation:Accuracy",
        aliases=("Accuracy",),
        summary="top-k classification accuracy, several k at once",
    ),
    *(
        Adapter(port="metric", name=name, target=f"{_A}.evaluation:{target}", aliases=(target,), summary=summary)
        for name, target, summary in (
            ("precision_recall_f1", "PrecisionRecallF1", "precision, recall and F1: micro, macro, weighted, per class"),
            ("confusion_matrix", "ConfusionMatrix", "how often each class was taken for each"),
            ("regression", "RegressionErrors", "MAE, MSE, RMSE and R²"),
            ("perplexity", "Perplexity", "perplexity over all tokens that count"),
        )
    ),
    Adapter(
        port="metric",
        name="dump_predictions",
        target=f"{_A}.evaluation:DumpPredictions",
        aliases=("DumpPredictions",),
        summary="predictions in a file, each with its sample's index",
    ),
    Adapter(
        port="metric",
        name="DumpResults",
        target=f"{_A}.evaluation.compat:DumpResults",
        summary="mmengine's: predictions in a pickle",
    ),
    Adapter(
        port="vis",
        name="jsonlines",
        target=f"{_A}.vis:JsonLines",
        aliases=("JsonLines", "LocalVisBackend"),
        summary="curves as lines of JSON, images as PNG",
    ),
    Adapter(
        port="vis",
        name="tensorboard",
        target=f"{_A}.vis:TensorBoard",
        aliases=("TensorBoard", "TensorboardVisBackend"),
        requires=("tensorboard",),
        install="treenail[tensorboard]",
        summary="curves, images and graphs in TensorBoard",
    ),
    Adapter(
        port="exporter",
        name="onnx",
        target=f"{_A}.export:OnnxExporter",
        aliases=("OnnxExporter",),
        requires=("onnx", "onnxscript", "onnxruntime"),
        install="treenail[onnx]",
        summary="ONNX, published after onnxruntime agreed with the model",
    ),
)
