"""Online half of recguard: the event encoder, the bundle, the engine and the HTTP service."""

import os

# Official builds of ONNX Runtime report their use to Microsoft unless this is set before their first import. A service
# that sees what people do must not call anybody.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
