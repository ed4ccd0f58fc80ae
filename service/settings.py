"""Configuration of the service: environment variables with the prefix RECGUARD_, or keyword arguments in tests."""

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """All settings; each reads the environment variable of its name, `RECGUARD_QUEUE_TOKENS` for `queue_tokens`."""

    model_config = SettingsConfigDict(env_prefix="RECGUARD_")

    bundle: Path = Field(description="Directory of the bundle to serve.")
    bundles: Path | None = Field(
        None, description="Directory in which a reload looks up bundle names; by default the bundle's parent."
    )
    challenger: Path | None = Field(
        None, description="Directory of a second bundle, which scores the same traffic in shadow on idle cores."
    )
    state_dir: Path = Field(Path("state"), description="Directory for everything that changes at run time.")
    provider: Literal["auto", "tensorrt", "cuda", "cpu"] = Field(
        "auto",
        description="`auto` takes CUDA if it is there; `cuda` and `tensorrt` refuse to start without their provider.",
    )
    threads: int = Field(
        0,
        ge=0,
        description="Threads inside one operator of ONNX Runtime on the CPU; 0: all cores, divided among the workers.",
    )
    gpu_memory_mb: int = Field(0, ge=0, description="Most GPU memory that a model may take; 0: no limit.")
    cuda_graphs: bool = Field(
        False, description="Whether the GPU's work is recorded once for each shape of a batch, and replayed."
    )
    shared_engine: bool = Field(
        False, description="Whether all workers share one engine in its own process: for one GPU and many cores."
    )
    workers: int = Field(1, ge=1, description="Number of processes that serve; with few cores, one is best.")
    run_dir: Path | None = Field(None, description="Set by the service itself when it has several workers.")
    host: str = Field("127.0.0.1", description="Address to listen on.")
    hosts: str = Field(
        "",
        description="Host names, separated by commas, that admin and review routes may be called by, beside loopback.",
    )
    port: int = Field(8080, ge=0, le=65535, description="Port to listen on.")
    max_body_bytes: int = Field(8_000_000, gt=0, description="Largest request body; a larger one gets 413.")
    max_sequences: int = Field(1024, gt=0, description="Most sequences in one request; on `/v1/events`, most events.")
    max_events: int = Field(8192, gt=0, description="Most events in one sequence, and in its `past`.")
    timeout_ms: int = Field(2000, gt=0, description="Deadline of a request that sends no X-Request-Timeout-Ms.")
    objective_ms: int = Field(
        100, gt=0, description="99 of 100 requests should be answered within this time; if not, an alert fires."
    )
    max_wait_ms: int = Field(
        500, gt=0, description="Longest wait for a turn; a request that would wait longer gets 429 at once."
    )
    queue_tokens: int = Field(
        65_536, gt=0, description="Most positions that may wait; when they are taken, requests get 429."
    )
    batch_tokens: int = Field(
        0, ge=0, description="Most positions in one batch, padding included; 0: 2,048 per thread, or 16,384 on CUDA."
    )
    max_text: int = Field(10_000, gt=0, description="Most characters in one text of an event.")
    request_seconds: float = Field(
        10,
        gt=0,
        description="Time for a request to arrive, and for its answer to be read; then the connection is closed.",
    )
    keep_alive_seconds: int = Field(
        75,
        gt=0,
        description="How long an idle connection stays open; choose more than clients do, so that they close first.",
    )
    cache_seconds: float = Field(
        0, ge=0, description="How long an answer is kept in case the same sequence is sent again; 0: no cache."
    )
    cache_sequences: int = Field(10_000, gt=0, description="Most answers in the cache.")
    drain_seconds: int = Field(20, ge=0, description="Time to answer accepted requests after SIGTERM.")
    api_keys: SecretStr = Field(
        SecretStr(""),
        description="API keys, `name:scope+scope:secret`, separated by commas; scopes: score, review, admin, metrics.",
    )
    api_keys_file: Path | None = Field(None, description="File with more API keys, one per line.")
    key_rate: float = Field(
        0, ge=0, description="Requests per second that the keys of one name may make together; 0: no limit."
    )
    bundle_public_key: Path | None = Field(
        None, description="PEM file of an Ed25519 public key; only bundles signed by its owner are served."
    )
    allow_users: Path | None = Field(None, description="File of user ids, one per line, that are never flagged.")
    deny_users: Path | None = Field(None, description="File of user ids, one per line, that are always blocked.")
    review_share: float = Field(
        0.001,
        ge=0,
        le=1,
        description="Share of allowed sequences that is kept for review too; recall is estimated from it.",
    )
    attack_share: float = Field(
        0.1,
        ge=0,
        le=0.5,
        description="Share of all accounts that may attack at any time before scores alone speak of a broken promise.",
    )
    review_days: float = Field(30, gt=0, description="How many days answers are kept for review.")
    review_most: int = Field(100_000, gt=0, description="Most answers kept for review; the oldest go first.")
    exempt_days: float = Field(
        30,
        ge=0,
        description="How many days a flagged account is exempt once a person has called it genuine; 0: not at all.",
    )
    store_url: SecretStr = Field(
        SecretStr(""),
        description="SQLAlchemy URL of the database for review; by default SQLite in the state directory.",
    )
    id_key: SecretStr = Field(
        SecretStr(""),
        description="Secret under which ids are hashed; all who share a database must have the same one. By default a "
        "salt in the state directory.",
    )
    live_url: SecretStr = Field(
        SecretStr(""),
        description="Redis for windows and crowd (extra `redis`); by default this process's memory.",
    )
    live_window: int = Field(64, gt=0, description="How many of the latest events of a key make its window.")
    live_every: int = Field(
        1, ge=0, description="A window is scored at every N-th event of its key; 0: only at the actions named."
    )
    live_actions: str = Field(
        "", description="Actions, separated by commas, at which a window is scored whatever the number of the event."
    )
    live_reviews_kept: bool = Field(
        False,
        description="Whether reviews of live windows keep their rate over 200 looks at an account, as blocks do.",
    )
    live_seconds: float = Field(86_400, gt=0, description="How many seconds a window is kept after its latest event.")
    live_keys: int = Field(
        100_000, gt=0, description="Most windows in memory; the one silent longest goes first. Redis has its own limit."
    )
    live_event_bytes: int = Field(
        2048,
        gt=0,
        description="Largest event in a window, in bytes of JSON; more for events with vectors of over 100 numbers.",
    )
    live_ahead_seconds: float = Field(
        300,
        gt=0,
        description="An event further ahead of the clock is refused, since it would stay in its window too long.",
    )
    cascade: bool = Field(
        False,
        description="Whether the network is left out where it could change no decision, so that most sequences cost "
        "less.",
    )
    crowd: bool = Field(
        True,
        description="Whether sequences are judged beside what other accounts do, where the bundle knows of a crowd.",
    )
    crowd_accounts: int = Field(
        20_000, gt=0, description="Most accounts of the crowd in memory; those silent longest go first."
    )
    crowd_values: int = Field(
        200_000, gt=0, description="Most values whose holders are kept; the one named longest ago goes first."
    )
    crowd_key: SecretStr = Field(
        SecretStr(""),
        description="Secret under which the crowd's accounts are hashed; all who share a Redis must have the same one.",
    )
    crowd_records: int = Field(
        1_000_000, gt=0, description="About how many records of the crowd a Redis keeps; the oldest go first."
    )
    crowd_days: float = Field(90, gt=0, description="How many days a Redis keeps a record of the crowd.")
    campaign_seconds: float = Field(
        60, ge=0, description="How often campaigns are looked for in the crowd, in seconds; 0: never."
    )
    campaign_bytes: int = Field(
        32 << 20,
        ge=0,
        description="Most bytes of the latest answers in memory that give names to campaigns; the oldest go first.",
    )
    webhook_url: str = Field("", description="Address that is told of blocked sequences.")
    webhook_secret: SecretStr = Field(SecretStr(""), description="Secret that signs the messages of the webhook.")
    log_format: Literal["json", "text"] = Field("json", description="Format of the log.")
    log_requests: float = Field(
        0.01, ge=0, le=1, description="Share of requests that get a line in the log; server errors always do."
    )
    log_ids: bool = Field(
        False, description="Whether the log shows sequence ids as they are, instead of salted hashes."
    )
    traces: bool = Field(False, description="Whether OpenTelemetry spans are exported (extra `traces`).")
