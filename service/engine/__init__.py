"""Graphs run here, in batches: sessions of ONNX Runtime, in this process or another, and the batcher."""
