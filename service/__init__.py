"""Online half of recguard: the event encoder, the bundle, the engine and the HTTP service."""
