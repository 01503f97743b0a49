"""One Settings, read once at the edge (a command, a task) and passed in from there.

Every value comes from the environment or from `.env` in the working directory, and what is to be
fetched also from a universe file, which stands below both.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Self
from urllib.parse import quote, urlsplit

from pydantic import (
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from bentley import universe as universe_file
from bentley.domain.clock import iso, parse_time
from bentley.domain.errors import ConfigurationError
from bentley.domain.market import STOCK_SOURCES

PUBLIC_EXCHANGE = "https://data-api.binance.vision"
PUBLIC_ARCHIVE = "https://data.binance.vision"
AIRBYTE_CLOUD = "https://api.airbyte.com/v1"
EXCHANGE_ORIGIN = "exchange"
TIMES = frozenset({"since", "until"})
_LIMIT = re.compile(r"(?P<name>\w+)=(?P<calls>[1-9][0-9]{0,6})/(?P<seconds>[1-9][0-9]{0,6})")

Names = Annotated[tuple[str, ...], NoDecode]


class RateLimit(NamedTuple):
    """So many requests within any `seconds`."""

    calls: int
    seconds: float

    def __str__(self) -> str:
        """Write it as a user does."""
        return f"{self.calls}/{self.seconds:g}"


class Settings(BaseSettings):
    """What a user can set; the names are a public contract.

    `since` and `until` are UTC milliseconds, `until` exclusive; `since` None means
    `history_days` before the exchange's clock.
    """

    model_config = SettingsConfigDict(
        env_file=".env", env_prefix="BENTLEY_", extra="ignore", frozen=True, populate_by_name=True
    )

    home: Path = Path("var")
    warehouse_url: SecretStr | None = None
    exchange_url: str = PUBLIC_EXCHANGE
    archive: str = PUBLIC_ARCHIVE
    symbols: Names = ("BTCUSDT", "ETHUSDT", "BNBUSDT", "ADAUSDT")
    intervals: Names = ("1h",)
    tickers: Names = ()
    sources: Names = STOCK_SOURCES
    universe: Path | None = None
    since: int | None = None
    until: int | None = None
    history_days: int = Field(default=30, ge=1)
    airflow_port: int = Field(default=8080, ge=1, le=65535)
    mlflow_database_url: SecretStr | None = None
    mlflow_port: int = Field(default=5000, ge=1, le=65535)
    max_rejected_share: float = Field(default=0.05, ge=0, le=1)
    rate_limits: Annotated[dict[str, RateLimit], NoDecode] = Field(default_factory=dict)
    max_failed_share: float = Field(default=0.2, ge=0, le=1)
    consensus_bps: float = Field(default=50.0, gt=0)
    freshness_hours: float = Field(default=3.0, gt=0)
    stage_timeout_minutes: float = Field(default=60.0, gt=0)
    origin: str = EXCHANGE_ORIGIN
    airbyte_connection_id: str | None = Field(
        default=None, validation_alias="AIRBYTE_CONNECTION_ID"
    )
    airbyte_api_url: str = Field(default=AIRBYTE_CLOUD, validation_alias="AIRBYTE_API_URL")
    airbyte_client_id: str | None = Field(default=None, validation_alias="AIRBYTE_CLIENT_ID")
    airbyte_client_secret: SecretStr | None = Field(
        default=None, validation_alias="AIRBYTE_CLIENT_SECRET"
    )
    airbyte_table: str = Field(default="klines", pattern=r"^[A-Za-z0-9_$]{1,64}$")
    airbyte_columns: str = ""
    knime_executable: Path | None = Field(default=None, validation_alias="KNIME_EXECUTABLE")
    knime_warehouse_url: SecretStr | None = None
    mlflow_tracking_uri: str | None = Field(default=None, validation_alias="MLFLOW_TRACKING_URI")
    tiingo_api_key: SecretStr | None = Field(default=None, validation_alias="TIINGO_API_KEY")
    polygon_api_key: SecretStr | None = Field(default=None, validation_alias="POLYGON_API_KEY")
    alpha_vantage_api_key: SecretStr | None = Field(
        default=None, validation_alias="ALPHA_VANTAGE_API_KEY"
    )
    tiingo_url: str = "https://api.tiingo.com"
    polygon_url: str = "https://api.polygon.io"
    alpha_vantage_url: str = "https://www.alphavantage.co"
    yahoo_url: str = "https://query1.finance.yahoo.com"
    stocktwits_url: str = "https://api.stocktwits.com"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Put the universe file below all others."""
        above = (init_settings, env_settings, dotenv_settings, file_secret_settings)
        return (*above, universe_file.UniverseFile(settings_cls))

    @field_validator("home", "universe", mode="after")
    @classmethod
    def _absolute(cls, path: Path | None) -> Path | None:
        return None if path is None else path.expanduser().resolve()

    @field_validator("symbols", "intervals", "tickers", "sources", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        names = re.split(r"[,\s]+", value.strip()) if isinstance(value, str) else list(value)
        return tuple(dict.fromkeys(name for name in names if name))

    @field_validator("symbols", "intervals", "tickers", "sources", mode="after")
    @classmethod
    def _known(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        kind = str(info.field_name)
        try:
            names = tuple(dict.fromkeys(map(universe_file.LISTS[kind].check, value)))
        except ConfigurationError as error:
            raise ValueError(str(error)) from None
        if not names and cls.model_fields[kind].default:
            msg = f"name at least one {kind[:-1]}, like {universe_file.LISTS[kind].example}"
            raise ValueError(msg)
        return names

    @field_validator("rate_limits", mode="before")
    @classmethod
    def _limits(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        found = {}
        for text in re.split(r"[,\s]+", value.strip()):
            match = _LIMIT.fullmatch(text)
            if text and (match is None or match["name"] not in STOCK_SOURCES):
                msg = f"{text!r} is not written like polygon=100/60, with a source's name"
                raise ValueError(msg)
            if match is not None:
                found[match["name"]] = RateLimit(int(match["calls"]), float(match["seconds"]))
        return found

    @field_validator("since", "until", mode="before")
    @classmethod
    def _time(cls, value: Any) -> Any:
        if isinstance(value, str):
            try:
                return parse_time(value) if value.strip() else None
            except ConfigurationError as error:
                raise ValueError(str(error)) from None
        return value

    @model_validator(mode="before")
    @classmethod
    def _empty_exchange_is_unset(cls, given: Any) -> Any:
        """Drop it whole, so that `model_fields_set` doesn't take the default for a choice."""
        if isinstance(given, dict) and given.get("exchange_url") == "":
            return {name: value for name, value in given.items() if name != "exchange_url"}
        return given

    @field_validator("since", "until", mode="after")
    @classmethod
    def _after_1970(cls, value: int | None) -> int | None:
        if value is not None and value < 0:
            msg = f"{iso(value)} lies before 1970, where no bar is"
            raise ValueError(msg)
        return value

    @model_validator(mode="after")
    def _since_lies_before_until(self) -> Self:
        if self.since is not None and self.until is not None and self.since >= self.until:
            msg = (
                f"BENTLEY_SINCE {iso(self.since)} does not lie before BENTLEY_UNTIL "
                f"{iso(self.until)}, which is exclusive"
            )
            raise ValueError(msg)
        return self

    @field_validator(
        "universe",
        "warehouse_url",
        "knime_warehouse_url",
        "mlflow_database_url",
        "airbyte_connection_id",
        "airbyte_client_id",
        "airbyte_client_secret",
        "knime_executable",
        "mlflow_tracking_uri",
        "tiingo_api_key",
        "polygon_api_key",
        "alpha_vantage_api_key",
        mode="before",
    )
    @classmethod
    def _empty_is_unset(cls, value: Any) -> Any:
        return None if value == "" else value

    @field_validator("tiingo_api_key", "polygon_api_key", "alpha_vantage_api_key", mode="after")
    @classmethod
    def _one_word(cls, value: SecretStr | None) -> SecretStr | None:
        """Take what a file or a cluster's secret put around a key away from it."""
        key = "" if value is None else value.get_secret_value().strip()
        if not all("!" <= letter <= "~" for letter in key):
            msg = "a key holds no blanks and no letters but ASCII ones: copy it again"
            raise ValueError(msg)
        return SecretStr(key) if key else None

    @field_validator(
        "exchange_url",
        "tiingo_url",
        "polygon_url",
        "alpha_vantage_url",
        "yahoo_url",
        "stocktwits_url",
        mode="after",
    )
    @classmethod
    def _base_url(cls, value: str, info: ValidationInfo) -> str:
        value = value.rstrip("/").removesuffix("/api/v3")
        if urlsplit(value).scheme not in {"http", "https"} or not urlsplit(value).netloc:
            shown = value.rpartition("@")[2]  # a user and password may stand before it
            usual = cls.model_fields[str(info.field_name)].default
            msg = f"{shown!r} is not a web address; write it like {usual}"
            raise ValueError(msg)
        return value

    @field_validator("airbyte_api_url", mode="after")
    @classmethod
    def _airbyte_api(cls, value: str) -> str:
        value = value.rstrip("/") or AIRBYTE_CLOUD
        parts = urlsplit(value)
        if parts.scheme not in {"http", "https"} or not parts.netloc or not parts.path:
            shown = value.rpartition("@")[2]  # a user and password may stand before it
            msg = (
                f"{shown!r} is not the address of Airbyte's API; write it like {AIRBYTE_CLOUD} or, "
                "of your own server, http://host:8000/api/public/v1"
            )
            raise ValueError(msg)
        if "@" in parts.netloc:  # it would take the place of the token
            msg = f"{parts.hostname!r} stands after a user: AIRBYTE_CLIENT_ID and its secret log in"
            raise ValueError(msg)
        return value

    @field_validator("airbyte_columns", mode="after")
    @classmethod
    def _our_columns(cls, value: str) -> str:
        _column_map(value)
        return value

    @field_validator("archive", mode="after")
    @classmethod
    def _folder_or_site(cls, value: str) -> str:
        if ("://" in value and not value.startswith(("http://", "https://"))) or value.endswith(
            "//"
        ):
            msg = f"name a folder, or a site like {PUBLIC_ARCHIVE}"
            raise ValueError(msg)
        return value or PUBLIC_ARCHIVE

    @property
    def replayed(self) -> bool:
        """Whether the bars come from a replay that `bentley run` started itself."""
        return self.origin != EXCHANGE_ORIGIN

    @property
    def synced_by_server(self) -> bool:
        """Whether an Airbyte server does the syncs.

        Not those of a replay: the server's connection reads the market that it names itself.
        """
        return self.airbyte_connection_id is not None and not self.replayed

    @property
    def landing_columns(self) -> dict[str, str]:
        """The columns of a bar whose name differs in the landing table, with that name."""
        return _column_map(self.airbyte_columns)

    @property
    def data_home(self) -> Path:
        """Where this origin's databases lie: replayed and generated bars have a home of their own."""
        return self.home / "replay" if self.replayed else self.home

    @property
    def database_url(self) -> str:
        """The warehouse as a SQLAlchemy address, password included.

        Replayed bars get a database beside the one that is configured, `mansa_bot_replay`.
        """
        if self.warehouse_url is None:
            # SQLAlchemy decodes what it reads as an address.
            return f"sqlite:///{quote(str(self.data_home / 'mansa_bot.db'))}"
        address = self.warehouse_url.get_secret_value()
        if not self.replayed:
            return address
        path, mark, query = address.partition("?")
        return f"{path.removesuffix('.db')}_replay{'.db' * path.endswith('.db')}{mark}{query}"

    @property
    def airflow_url(self) -> str:
        """Where Airflow's API answers."""
        return f"http://127.0.0.1:{self.airflow_port}"

    def environment(self) -> dict[str, str]:
        """Write the settings as the environment of a child process, secrets included.

        Times go as ISO 8601: digits would have to be told from seconds.
        """
        found = {}
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if isinstance(value, SecretStr):
                value = value.get_secret_value()
            elif isinstance(value, tuple):
                value = ",".join(value)
            elif isinstance(value, dict):
                value = ",".join(f"{key}={limit}" for key, limit in value.items())
            elif name in TIMES and value is not None:
                value = iso(value)
            variable = field.validation_alias or f"BENTLEY_{name.upper()}"
            found[str(variable)] = "" if value is None else str(value)
        return found

    @property
    def reports(self) -> Path:
        """Where the master puts its reports."""
        return self.home / "reports"


def _column_map(text: str) -> dict[str, str]:
    """Read "ours=theirs,..."; ValueError for what is written otherwise or no column of a bar."""
    found: dict[str, str] = {}
    if not text.strip():
        return found
    from bentley.domain.bars import FIELDS  # noqa: PLC0415 - polars, which few settings need

    for pair in filter(None, re.split(r"[,\s]+", text.strip())):
        ours, sign, theirs = pair.partition("=")
        if not sign or not theirs:
            msg = f"{pair!r} is not written like open_time=opened_at"
            raise ValueError(msg)
        if ours not in FIELDS:
            msg = f"{ours!r} is no column of a bar; these are {', '.join(FIELDS)}"
            raise ValueError(msg)
        found[ours] = theirs
    used = Counter(found.get(name, name).lower() for name in FIELDS)
    twice = sorted(name for name, times in used.items() if times > 1)
    if twice:
        msg = f"more than one column of a bar would be read from {', '.join(twice)}"
        raise ValueError(msg)
    return found


def load(**overrides: Any) -> Settings:
    """Read the settings once; None among `overrides` means "not given".

    Raises ConfigurationError that names each wrong setting, without repeating a secret.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        raise ConfigurationError(_explain(error)) from None


def _explain(error: ValidationError) -> str:
    lines = []
    for fault in error.errors(include_url=False, include_context=False):
        said = fault["msg"].removeprefix("Value error, ")
        name = str(fault["loc"][0]) if fault["loc"] else ""
        variable = name if name.isupper() else f"BENTLEY_{name.upper()}"
        # Only a number's own text is repeated: any other input may hold a password.
        given = str(fault["input"])
        shown = f"{given} is refused: {said}" if re.fullmatch(r"[-+.\d]{1,20}", given) else said
        lines.append(f"{variable}: {shown}" if name else said)
    return "\n".join(lines)
