"""Django's settings, every one that may differ between two machines taken from the environment (see .env.example)."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from botos_project import databases, dotenv, transports
from botos_project.env import BadSetting, Environment, is_address

BASE_DIR = Path(__file__).resolve().parent.parent
ENV = Environment(dotenv.environment(), dotenv.names())

# --- Where this runs

DEBUG = ENV.boolean("DEBUG", default=False)
SECRET_KEY = ENV.secret("SECRET_KEY")
SECRET_KEY_FALLBACKS = ENV.secret_words("SECRET_KEY_FALLBACKS")
if not SECRET_KEY:
    raise BadSetting(
        "E001", "SECRET_KEY is not set.", hint='run "make run" once or set SECRET_KEY to 50 random characters.'
    )
if len(SECRET_KEY) < 50 or SECRET_KEY.startswith("django-insecure"):
    raise BadSetting("E002", "SECRET_KEY is easy to guess.", hint="set SECRET_KEY to 50 random characters.")
if any(len(key) < 50 or key.startswith("django-insecure") for key in SECRET_KEY_FALLBACKS):
    problem = "One of SECRET_KEY_FALLBACKS is easy to guess, or cut off."
    raise BadSetting("E015", problem, hint="write whole earlier values of SECRET_KEY with blanks between them.")

BOTOS_DATA_DIR = Path(ENV.text("BOTOS_DATA_DIR", str(BASE_DIR)))
BOTOS_PUBLIC_URL = ENV.address("BOTOS_PUBLIC_URL", example="https://bots.example.org").rstrip("/")
_public = urlsplit(BOTOS_PUBLIC_URL)
BOTOS_HTTPS = ENV.boolean("BOTOS_HTTPS", default=_public.scheme == "https")
BOTOS_WEB = ENV.listening("BOTOS_WEB", "127.0.0.1:8000")
BOTOS_TRUSTED_PROXIES = ENV.count("BOTOS_TRUSTED_PROXIES", 0)
BOTOS_WEB_REQUESTS = ENV.count("BOTOS_WEB_REQUESTS", 0)  # 0: 8 beside the bots, 20 in a process of their own

ALLOWED_HOSTS = ENV.hosts("ALLOWED_HOSTS", f"localhost,127.0.0.1,[::1],{_public.hostname or ''}")
CSRF_TRUSTED_ORIGINS = [f"{_public.scheme}://{_public.netloc}"] if BOTOS_PUBLIC_URL else []

# --- Platforms: an empty address means the platform's own

TELEGRAM_BOT_TOKEN = ENV.secret("TELEGRAM_BOT_TOKEN")
TELEGRAM_API_URL = ENV.address("TELEGRAM_API_URL")
BOTOS_TELEGRAM_TRANSPORT = ENV.choice("BOTOS_TELEGRAM_TRANSPORT", "polling", "polling webhook")
TELEGRAM_WEBHOOK_SECRET = ENV.secret("TELEGRAM_WEBHOOK_SECRET")
DISCORD_BOT_TOKEN = ENV.secret("DISCORD_BOT_TOKEN")
DISCORD_API_URL = ENV.address("DISCORD_API_URL")
DISCORD_GATEWAY_URL = ENV.address("DISCORD_GATEWAY_URL", scheme="ws")
SLACK_BOT_TOKEN = ENV.secret("SLACK_BOT_TOKEN")
SLACK_APP_TOKEN = ENV.secret("SLACK_APP_TOKEN")
SLACK_API_URL = ENV.address("SLACK_API_URL")
BOTOS_SLACK_TRANSPORT = ENV.choice("BOTOS_SLACK_TRANSPORT", "socket", "socket http")
SLACK_SIGNING_SECRET = ENV.secret("SLACK_SIGNING_SECRET")
# Descriptions of platforms by dotted path. Those that come along have their settings above, where mypy sees them.
BOTOS_PLATFORMS = [*transports.BUILT_IN, *ENV.words("BOTOS_PLATFORMS")]
_of_platforms = transports.read(BOTOS_PLATFORMS, ENV)
globals().update({name: value for name, value in _of_platforms.items() if name not in globals()})
transports.check(BOTOS_PLATFORMS, _of_platforms | {"BOTOS_PUBLIC_URL": BOTOS_PUBLIC_URL})

# --- The agent, and who is who

BOTOS_AGENT = ENV.text("BOTOS_AGENT")
BOTOS_MODEL = ENV.text("BOTOS_MODEL")
BOTOS_PRIVACY_NOTICE = ENV.text("BOTOS_PRIVACY_NOTICE")
BOTOS_INSTRUCTIONS = ENV.text("BOTOS_INSTRUCTIONS", "Be helpful.")
BOTOS_MODEL_MAX_TOKENS = ENV.integer("BOTOS_MODEL_MAX_TOKENS", 4096, or_zero=True)
OPENAI_API_KEY = ENV.secret("OPENAI_API_KEY")
OPENAI_BASE_URL = ENV.address("OPENAI_BASE_URL")
BOTOS_RESOLVER = ENV.text("BOTOS_RESOLVER", "identity.resolvers.DatabaseIdentityResolver")

# Numbers of pairing that differ from identity/pairing/settings.py, as name=value.
BOTOS_PAIRING = dict(pair.partition("=")[::2] for pair in ENV.words("BOTOS_PAIRING"))

# --- Turns

BOTOS_SETTLE_SECONDS = ENV.seconds("BOTOS_SETTLE_SECONDS", 0.3, zero=True)
BOTOS_TURN_SECONDS = ENV.seconds("BOTOS_TURN_SECONDS", 120)
BOTOS_LEASE_SECONDS = ENV.seconds("BOTOS_LEASE_SECONDS", 30)
BOTOS_SEND_SECONDS = ENV.seconds("BOTOS_SEND_SECONDS", 30)
BOTOS_RECEIVER_LEASE_SECONDS = ENV.seconds("BOTOS_RECEIVER_LEASE_SECONDS", 30)
BOTOS_SWEEP_SECONDS = ENV.seconds("BOTOS_SWEEP_SECONDS", 2)
BOTOS_DRAIN_SECONDS = ENV.seconds("BOTOS_DRAIN_SECONDS", 20)
BOTOS_WINDOW = ENV.integer("BOTOS_WINDOW", 100)
BOTOS_WINDOW_TOKENS = ENV.integer("BOTOS_WINDOW_TOKENS", 16_000, or_zero=True)
BOTOS_WORKERS = ENV.integer(
    "BOTOS_WORKERS", 128, hint="; to leave the answers to other processes, use runbots --workers 0"
)

# --- How long things are kept, in days

BOTOS_RETENTION_EVENTS_DAYS = ENV.days("BOTOS_RETENTION_EVENTS_DAYS", 7)
BOTOS_RETENTION_KEYS_DAYS = ENV.days("BOTOS_RETENTION_KEYS_DAYS", 30)
if BOTOS_RETENTION_KEYS_DAYS < 3:
    problem = (
        "BOTOS_RETENTION_KEYS_DAYS is below 3: after a restart, BotOS would answer messages of the last two days again."
    )
    raise BadSetting("E014", problem, hint="write BOTOS_RETENTION_KEYS_DAYS=30.")
BOTOS_RETENTION_DELIVERIES_DAYS = ENV.days("BOTOS_RETENTION_DELIVERIES_DAYS", 30)
BOTOS_RETENTION_PAIRINGS_DAYS = ENV.days("BOTOS_RETENTION_PAIRINGS_DAYS", 30)
BOTOS_RETENTION_AUDIT_DAYS = ENV.days("BOTOS_RETENTION_AUDIT_DAYS", 400)
BOTOS_RETENTION_HISTORY_DAYS = ENV.days("BOTOS_RETENTION_HISTORY_DAYS", 0)

# --- The application

REDIS_URL = ENV.secret("REDIS_URL")
if REDIS_URL and not REDIS_URL.startswith("unix:///") and not is_address(REDIS_URL, {"redis", "rediss"}):
    problem = "REDIS_URL is not an address that begins with redis://, rediss:// or unix:///."
    raise BadSetting("E018", problem, hint="write REDIS_URL=redis://127.0.0.1:6379/0.")

INSTALLED_APPS = [
    "identity.admin_config.LimitedAdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "channels",
    "csp",
    "django_linear_migrations",
    # Its dashboard answers with an error when there is no Redis.
    *(["django_rq"] if REDIS_URL else []),
    "identity",
    "sessions_app",
    "adapters",
]

# The headers of every page, also of those that are answered before Django is asked (botos_project/ingress.py).
SECURITY_MIDDLEWARE = [
    "botos_project.caching.NoStoreMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django.middleware.security.SecurityMiddleware",
]
MIDDLEWARE = [
    # First, so that also what the others answer by themselves, such as to a wrong host, cannot be framed or load.
    *SECURITY_MIDDLEWARE,
    "botos_project.bad_requests.BadRequestMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]

ROOT_URLCONF = "botos_project.urls"
ASGI_APPLICATION = "botos_project.asgi.application"

TEMPLATES: list[dict[str, Any]] = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

# --- Where things are kept. Never ATOMIC_REQUESTS: the domain modules say what one transaction is.

_database_url = ENV.secret("DATABASE_URL")
DATABASES = {
    "default": databases.parse(_database_url, web_requests=BOTOS_WEB_REQUESTS or 20)
    if _database_url
    else databases.sqlite(BOTOS_DATA_DIR / "botos.sqlite3"),
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

CHANNEL_LAYERS: dict[str, dict[str, Any]] = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
RQ_QUEUES: dict[str, dict[str, Any]] = {}
# It makes no table, only permissions for its dashboard; a database must not be behind because Redis was added.
MIGRATION_MODULES = {"django_rq": None}
RQ = {"WORKER_CLASS": "adapters.runtime.worker.TurnWorker"}
if REDIS_URL:
    CHANNEL_LAYERS["default"] = {
        "BACKEND": "channels_redis.core.RedisChannelLayer",
        # redis-py gives up reading after 5 seconds, as long as the layer waits for a message: each idle page would
        # lose its connection (django/channels_redis#422). With any limit, it also loses a cancellation that comes while
        # a command is sent, up to Python 3.11: the page's process would not end.
        "CONFIG": {
            "hosts": [{"address": REDIS_URL, "socket_timeout": None, "socket_keepalive": True}],
            "prefix": "botos",
        },
    }
    # JSON: a job is data; write access to Redis must not allow code to run here.
    RQ_QUEUES["turns"] = {"URL": REDIS_URL, "SERIALIZER": "rq.serializers.JSONSerializer"}

# --- Language, time and static files

LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_I18N = True
USE_TZ = True

STATIC_URL = "static/"
STATICFILES_DIRS = [BASE_DIR / "static"]
# The pages' few small files are served from where they are, so that nothing must be collected before the first start.
WHITENOISE_USE_FINDERS = True

# --- Signing in, and what a browser may do

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]

CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": ["'none'"],
        "script-src": ["'self'"],
        "style-src": ["'self'"],
        "img-src": ["'self'", "data:"],
        "connect-src": ["'self'"],
        "form-action": ["'self'"],
        "base-uri": ["'none'"],
        "frame-ancestors": ["'none'"],
    },
}
X_FRAME_OPTIONS = "DENY"

SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE_SSL_REDIRECT = BOTOS_HTTPS
# Only a proxy of ours can be believed about it, and it must say it each time, so that nobody else's word gets through.
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if BOTOS_TRUSTED_PROXIES else None
SECURE_REDIRECT_EXEMPT = [r"^(healthz|readyz)$"]  # asked by a supervisor on this machine, without TLS
SECURE_HSTS_SECONDS = 31_536_000 if BOTOS_HTTPS else 0
# HSTS for subdomains and for browsers' preload lists would bind hosts that are not BotOS's to decide about.
SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W021"]

# Bodies are bounded in botos_project/ingress.py, and never go to the disk.
DATA_UPLOAD_MAX_MEMORY_SIZE = FILE_UPLOAD_MAX_MEMORY_SIZE = 4 * 1024 * 1024
FILE_UPLOAD_HANDLERS = ["django.core.files.uploadhandler.MemoryFileUploadHandler"]

# --- Watching

BOTOS_METRICS_TOKEN = ENV.secret("BOTOS_METRICS_TOKEN")

# --- Logs

BOTOS_LOG_FORMAT = ENV.choice("BOTOS_LOG_FORMAT", "text", "text json")
_level = ENV.choice("BOTOS_LOG_LEVEL", "info", "debug info warning error critical")
LOGGING_CONFIG = "botos_project.logs.configure"
LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "text": {"()": "botos_project.logs.RedactingFormatter", "secrets": ENV.secrets},
        "json": {"()": "botos_project.logs.JSONFormatter", "secrets": ENV.secrets},
    },
    "filters": {
        "refusals": {"()": "botos_project.refusals.WithoutTraceback"},
        "once a minute": {"()": "botos_project.refusals.OnceAMinute"},
    },
    "handlers": {
        "console": {"class": "logging.StreamHandler", "formatter": BOTOS_LOG_FORMAT, "filters": ["refusals"]},
    },
    "root": {"handlers": ["console"], "level": _level.upper()},
    "loggers": {
        # Django's own handlers would print a second time, and unredacted.
        "django": {"handlers": [], "propagate": True},
        "django.server": {"handlers": [], "propagate": True},
        # At INFO they write one line per request, at DEBUG also what people said.
        **{
            name: {"level": "WARNING"}
            for name in (
                *("httpx", "httpcore", "httpx2", "httpcore2", "openai", "pydantic_ai"),  # the same libraries twice
                *transports.loggers(BOTOS_PLATFORMS),
            )
        },
        # Its own command line takes its lines away from us, and they would be printed unredacted.
        "uvicorn": {"level": "WARNING", "propagate": True},
        # asyncio logs more than a hundred lines with tracebacks for one accept without free file handles.
        **{name: {"filters": ["once a minute"]} for name in ("asyncio", "uvicorn.error")},
        # It logs each attempt while the database is away, and so does the code that asks for a connection.
        "psycopg.pool": {"level": "ERROR"},
    },
}
