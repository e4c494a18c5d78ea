"""What two documents can be compared by."""

from treenail.adapters.documents import Document, Map, Seq


def plain(value: object) -> object:
    """Return a value as dicts and lists, without places."""
    if isinstance(value, Map):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, Seq):
        return [plain(inner) for inner in value]
    return value


def whole(document: Document) -> object:
    """Return everything that a document says: types, values (NaN equals itself here) and all places."""
    return _whole(document.data), document.mark


def _whole(value: object) -> object:
    if isinstance(value, Map):
        assert value.keys() == value.marks.keys()
        return "map", [(key, _whole(inner), value.marks[key]) for key, inner in value.items()]
    if isinstance(value, Seq):
        assert len(value) == len(value.marks)
        return "seq", [_whole(inner) for inner in value], value.marks
    return type(value), repr(value)
