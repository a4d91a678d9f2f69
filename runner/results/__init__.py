
from .result import Result as Result
from .result import ResultNode as ResultNode
