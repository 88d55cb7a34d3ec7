"""One module per family: the part of it that an NPU runs (:mod:`edgevoice.export.npu_graph`)."""
