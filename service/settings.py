"""Configuration of the service: environment variables with the prefix RECGUARD_, or keyword arguments in tests."""

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """All settings; each reads the environment variable of its name, `RECGUARD_QUEUE_TOKENS` for `queue_tokens`."""

    model_config = SettingsConfigDict(env_prefix="RECGUARD_")

    bundle: Path = Field(description="Bundle directory to serve.")
    bundles: Path | None = Field(
        None, description="Directory in which reload looks up names; by default the bundle's parent."
    )
    challenger: Path | None = Field(
        None, description="Directory of a second bundle that scores the same traffic in shadow, on idle cores."
    )
    state_dir: Path = Field(Path("state"), description="Directory for all that changes at run time.")
    provider: Literal["auto", "tensorrt", "cuda", "cpu"] = Field(
        "auto", description="`tensorrt` and `cuda` refuse to start without; `auto` takes CUDA where it is."
    )
    threads: int = Field(
        0, ge=0, description="Intra-op threads of ONNX Runtime on the CPU; 0: the cores, shared out among the workers."
    )
    gpu_memory_mb: int = Field(0, ge=0, description="Most memory of the GPU for a model; 0: no bound.")
    cuda_graphs: bool = Field(
        False, description="Whether the GPU's work on batches of a shape is recorded once and replayed."
    )
    shared_engine: bool = Field(
        False, description="Whether the workers share one engine in a process of its own, for one GPU under many cores."
    )
    workers: int = Field(1, ge=1, description="Processes that serve; with few cores one is best.")
    run_dir: Path | None = Field(None, description="Set by the service itself where it has several workers.")
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8080, ge=0, le=65535, description="Port to listen on.")
    max_body_bytes: int = Field(8_000_000, gt=0, description="Larger request bodies are refused with 413.")
    max_sequences: int = Field(1024, gt=0, description="Most sequences in one request.")
    max_events: int = Field(8192, gt=0, description="Most events in one sequence.")
    timeout_ms: int = Field(2000, gt=0, description="Deadline of a request that sets no X-Request-Timeout-Ms.")
    objective_ms: int = Field(
        100, gt=0, description="Time that 99 of 100 requests should keep to; past it an alert fires."
    )
    max_wait_ms: int = Field(500, gt=0, description="Requests that would wait longer for their turn get 429 at once.")
    queue_tokens: int = Field(65_536, gt=0, description="Positions that may wait; past them requests get 429.")
    batch_tokens: int = Field(
        0, ge=0, description="Most positions of one batch, padding included; 0: 2,048 a thread, or 16,384 on CUDA."
    )
    max_text: int = Field(10_000, gt=0, description="Most characters of one text in an event.")
    request_seconds: float = Field(
        10, gt=0, description="Time for a request to arrive, and for its answer to be taken; then the connection ends."
    )
    keep_alive_seconds: int = Field(
        75, gt=0, description="Time an idle connection is kept; longer than clients keep theirs, lest one meet its end."
    )
    cache_seconds: float = Field(0, ge=0, description="How long an answer is kept for a sequence sent again; 0: not.")
    cache_sequences: int = Field(10_000, gt=0, description="Most answers kept.")
    drain_seconds: int = Field(20, ge=0, description="Time to answer what was accepted after SIGTERM.")
    api_keys: SecretStr = Field(
        SecretStr(""),
        description="API keys, `name:scope+scope:secret`, separated by commas; scopes: score, review, admin, metrics.",
    )
    api_keys_file: Path | None = Field(None, description="File with more of them, one a line.")
    key_rate: float = Field(0, ge=0, description="Requests a second that one API key may make; 0: any number.")
    bundle_public_key: Path | None = Field(
        None, description="PEM file of an Ed25519 public key; only bundles that its owner signed are served."
    )
    allow_users: Path | None = Field(None, description="File of user ids, one a line, that are never flagged.")
    deny_users: Path | None = Field(None, description="File of user ids, one a line, that are always blocked.")
    review_share: float = Field(
        0.001,
        ge=0,
        le=1,
        description="Share of allowed sequences that are kept for review too, from which recall is told.",
    )
    review_days: float = Field(30, gt=0, description="How long answers are kept for review.")
    review_most: int = Field(100_000, gt=0, description="Most answers kept for review; the oldest give way.")
    store_url: SecretStr = Field(
        SecretStr(""),
        description="SQLAlchemy URL of the database for review; by default SQLite in the state directory.",
    )
    live_url: SecretStr = Field(
        SecretStr(""),
        description="Redis for the windows of `/v1/events` (extra `redis`); by default this process's memory.",
    )
    live_window: int = Field(64, gt=0, description="Events of a key, the latest, that make its window.")
    live_least: int = Field(
        0, ge=0, description="Events before which a window is not scored; 0: as 99 in 100 of training had."
    )
    live_every: int = Field(1, ge=0, description="Each so-maniest event of a key has its window scored; 0: none.")
    live_actions: str = Field(
        "", description="Actions, separated by commas, that have the window scored whatever the event's number."
    )
    live_seconds: float = Field(86_400, gt=0, description="How long a window is kept after its latest event.")
    live_keys: int = Field(
        100_000, gt=0, description="Most windows in memory; the one silent longest gives way. Redis has its own bound."
    )
    live_event_bytes: int = Field(2048, gt=0, description="Most bytes of one event of a window, as JSON.")
    live_ahead_seconds: float = Field(
        300, gt=0, description="An event that much ahead of the clock is refused: it would outstay all that are real."
    )
    webhook_url: str = Field("", description="Address that is told of blocked sequences.")
    webhook_secret: SecretStr = Field(SecretStr(""), description="Secret that signs what the webhook is told.")
    log_format: Literal["json", "text"] = Field("json", description="Form of the log.")
    log_requests: float = Field(
        0.01, ge=0, le=1, description="Share of requests that get a line in the log; server errors always do."
    )
    log_ids: bool = Field(False, description="Whether the log shows sequence ids as they are, not salted hashes.")
    traces: bool = Field(False, description="Whether OpenTelemetry spans are exported (extra `traces`).")
