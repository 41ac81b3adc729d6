"""Import modules and tell what that did: `importing.py [MODULE ...]`; without a module it is the bare Python."""

import os
import sys
from time import perf_counter

modules = set(sys.modules)
environment = dict(os.environ)
began = perf_counter()
for name in sys.argv[1:]:
    __import__(name)
print((perf_counter() - began) * 1000)
print(int(environment != dict(os.environ)))
print(*(set(sys.modules) - modules))
