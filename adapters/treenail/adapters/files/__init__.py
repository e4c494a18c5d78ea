"""Files in any store: backends behind six verbs, and the functions over them that everyday code calls."""

from treenail.adapters.files.archives import ArchiveFiles
from treenail.adapters.files.batches import Written, get_many, put_many
from treenail.adapters.files.below import FilesBelow, backend_at
from treenail.adapters.files.cache import FileCache
from treenail.adapters.files.checks import mistakes_in_files
from treenail.adapters.files.derived import copy, download, file_exists, is_directory, scan, stream, upload
from treenail.adapters.files.formats import (
    FileFormat,
    JsonFormat,
    MsgpackFormat,
    NpyFormat,
    NumpyFormat,
    PickleFormat,
    SafetensorsFormat,
    TextFormat,
    TomlFormat,
    TorchFormat,
    YamlFormat,
)
from treenail.adapters.files.fsspec_files import FsspecFiles
from treenail.adapters.files.http import HttpFiles
from treenail.adapters.files.hubs import HuggingFaceFiles, ModelScopeFiles
from treenail.adapters.files.lmdb_files import LmdbFiles
from treenail.adapters.files.local import LocalFiles
from treenail.adapters.files.locks import lock, locked
from treenail.adapters.files.memcached import MemcachedFiles
from treenail.adapters.files.memory import MemoryFiles
from treenail.adapters.files.mirror import LocalMirror
from treenail.adapters.files.mounts import LocalCopies, Mounts, Place, current_mounts, mounts_of, use_mounts
from treenail.adapters.files.objects import ObjectFiles
from treenail.adapters.files.operations import (
    copy_if_symlink_fails,
    copyfile,
    copytree,
    exists,
    generate_presigned_url,
    get,
    get_local_path,
    get_text,
    isdir,
    isfile,
    join_path,
    list_dir_or_file,
    make_directory,
    put,
    put_text,
    put_to,
    remove,
    rmtree,
    stat,
)
from treenail.adapters.files.paths import local_path_of, redacted
from treenail.adapters.files.progress import transfer_progress
from treenail.adapters.files.records import Span, iterate_records, read_records, record_spans
from treenail.adapters.files.sync import Synced, sync
from treenail.adapters.files.values import dict_from_file, dump, installed_formats, list_from_file, load

__all__ = [
    "ArchiveFiles",
    "FileCache",
    "FileFormat",
    "FilesBelow",
    "FsspecFiles",
    "HttpFiles",
    "HuggingFaceFiles",
    "JsonFormat",
    "LmdbFiles",
    "LocalCopies",
    "LocalFiles",
    "LocalMirror",
    "MemcachedFiles",
    "MemoryFiles",
    "ModelScopeFiles",
    "Mounts",
    "MsgpackFormat",
    "NpyFormat",
    "NumpyFormat",
    "ObjectFiles",
    "PickleFormat",
    "Place",
    "SafetensorsFormat",
    "Span",
    "Synced",
    "TextFormat",
    "TomlFormat",
    "TorchFormat",
    "Written",
    "YamlFormat",
    "backend_at",
    "copy",
    "copy_if_symlink_fails",
    "copyfile",
    "copytree",
    "current_mounts",
    "dict_from_file",
    "download",
    "dump",
    "exists",
    "file_exists",
    "generate_presigned_url",
    "get",
    "get_local_path",
    "get_many",
    "get_text",
    "installed_formats",
    "is_directory",
    "isdir",
    "isfile",
    "iterate_records",
    "join_path",
    "list_dir_or_file",
    "list_from_file",
    "load",
    "local_path_of",
    "lock",
    "locked",
    "make_directory",
    "mistakes_in_files",
    "mounts_of",
    "put",
    "put_many",
    "put_text",
    "put_to",
    "read_records",
    "record_spans",
    "redacted",
    "remove",
    "rmtree",
    "scan",
    "stat",
    "stream",
    "sync",
    "transfer_progress",
    "upload",
    "use_mounts",
]
