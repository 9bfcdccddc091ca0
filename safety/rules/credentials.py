"""The rules for secrets: keys in their vendors' formats, passwords in URLs, values assigned to a name."""

from __future__ import annotations

from safety.rules import checks
from safety.rules.patterns import Check, Pattern


def _secret(name: str, pattern: str, check: Check | None = None, needs: str = "") -> Pattern:
    return Pattern(name, "secret", pattern, check, needs)


def _key(name: str, body: str, check: Check | None = None, needs: str = "") -> Pattern:
    """A key that is a word: no letter or digit stands before or after it."""
    return _secret(name, rf"(?<![A-Za-z0-9_])(?:{body})(?![A-Za-z0-9_])", check, needs)


_NAMED = (
    r"(?:api[_-]?+key|access[_-]?+key|secret|token|passw(?:or)?+d|passphrase|private[_-]?+key|credentials?+)"
)

SECRETS = (
    _key("aws_access_key", r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}"),
    _key(
        "github_token",
        r"gh[opsur]_[A-Za-z0-9]{36,251}+|github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}",
        needs="_",
    ),
    _key(
        "gitlab_token",
        r"(?:glpat|gldt|glrt|glptt|glagent|glsoat|glft|glimt|glffct|glcbt-[0-9a-f]{1,5}+)"
        r"[-_][A-Za-z0-9_-]{20,300}+(?:\.[0-9a-z]{2}\.[0-9a-z]{9})?+",
        needs="gl",
    ),
    _key("slack_token", r"(?:xox[abceoprs]|xapp)-[0-9A-Za-z-]{10,250}+", checks.varied, "x"),
    _secret(
        "slack_webhook",
        r"hooks\.slack\.com/(?P<secret>(?:services|workflows|triggers)/[A-Za-z0-9]{8,14}+/[A-Za-z0-9]{8,24}+/[A-Za-z0-9]{20,48}+)",
        needs="hooks.slack.com/",
    ),
    _key("stripe_key", r"(?:sk|rk)_(?:live|test)_[A-Za-z0-9]{16,247}+|whsec_[A-Za-z0-9]{32,64}+", needs="_"),
    _key("google_key", r"AIza[A-Za-z0-9_-]{35}(?!-)|GOCSPX-[A-Za-z0-9_-]{28}(?!-)"),
    _key(
        "model_key",
        r"sk-(?:proj-|svcacct-|admin-|ant-[a-z0-9]{2,10}+-|or-v1-)?+[A-Za-z0-9_-]{20,220}+",
        checks.model_key,
        "sk-",
    ),
    _key(
        "jwt",
        r"eyJ[A-Za-z0-9_-]{10,400}+\.eyJ[A-Za-z0-9_-]{10,1200}+\.[A-Za-z0-9_-]{20,700}+",
        checks.token,
        "eyJ",
    ),
    # With the lines of its headers and of its body, also where they are joined by the \n of a string.
    _secret(
        "private_key",
        r"-----BEGIN (?:(?!PRIVATE)[A-Z0-9]{1,12}+ )?+PRIVATE KEY(?: BLOCK)?+-----"
        r"(?:(?:\\[nr]|\s){1,4}+[A-Z][A-Za-z-]{2,20}+: [^\r\n\\]{1,80}+){0,4}+"
        r"(?:(?:\\[nr]|\s){0,4}+[A-Za-z0-9+/=]{16,80}+){0,64}+",
        needs="PRIVATE KEY",
    ),
    _secret(
        "url_password",
        r"(?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+.-]{1,20}+://[^\s/:@\"'<>\\\[\]]{0,64}+"
        r":(?P<secret>[^\s/:@\"'<>\\\[\]]{3,128}+)@",
        checks.password,
        "://",
    ),
    _secret(
        "assigned_secret",
        rf"(?i){_NAMED}"
        r"[A-Za-z0-9_-]{0,24}+[\"']?+\]?+\s{0,4}+(?:=>|:=|=|:)\s{0,4}+[\"'](?P<secret>[A-Za-z0-9+/=_.~!@#$%^&*-]{12,200}+)[\"']",
        checks.assigned,
    ),
    # To the end of a line or a word, as in the shell, in .env and in YAML; a call or a name goes on.
    _secret(
        "unquoted_secret",
        rf"(?i){_NAMED}"
        r"[A-Za-z0-9_-]{0,24}+[\"']?+[ \t]{0,2}+[=:][ \t]{0,2}+"
        r"(?P<secret>[A-Za-z0-9+/=_~-]{16,200}+)(?![A-Za-z0-9+/=_~(\[:@\\<-]|\.[A-Za-z0-9_])",
        checks.drawn,
    ),
)
