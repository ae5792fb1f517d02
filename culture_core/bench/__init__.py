"""CultureBench: pictures of cultures, each captioned with the culture and without it.

From a folder of pictures: `ingest` takes them in, `caption` and `translate` have a vision-language model
write about them, `ReviewServer` lets a person accept or reject, `split_records` makes the 7 : 2 : 1 split,
`validate` checks, `statistics` counts, `export` and `import_folder` speak with Hugging Face's datasets.
Records become prompt pairs by `Record.pair`.
"""

from .captions import Captions, Written, caption, give_captions, translate
from .counts import statistics
from .exchange import Exported, export, import_folder
from .ingestion import Defaults, Ingested, ingest
from .records import ACCEPTED, REJECTED, Bench, BenchError, Record
from .review import ReviewServer
from .splitting import Splitting, split_records
from .validation import Problem, validate

__all__ = [
    "ACCEPTED",
    "REJECTED",
    "Bench",
    "BenchError",
    "Captions",
    "Defaults",
    "Exported",
    "Ingested",
    "Problem",
    "Record",
    "ReviewServer",
    "Splitting",
    "Written",
    "caption",
    "export",
    "give_captions",
    "import_folder",
    "ingest",
    "split_records",
    "statistics",
    "translate",
    "validate",
]
