"""`[kafka]`: brokers, consumer groups, authentication."""

import ssl
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, SecretStr, model_validator

from detector.settings import Section, Word


class Kafka(Section):
    bootstrap: str = Field("127.0.0.1:9092", min_length=3, description="Bootstrap brokers, `host:port,host:port`.")
    group: Word = Field("probewatch", description="Prefix of the consumer groups; one per installation.")
    session_timeout_s: float = Field(
        30.0, ge=1, le=1_800, description="A worker without a heartbeat for this long loses its partitions, s."
    )
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="Security protocol of the brokers."
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "SCRAM-SHA-512", description="SASL mechanism, for the two SASL protocols."
    )
    sasl_username: str | None = Field(None, description="SASL user.")
    sasl_password: SecretStr | None = Field(None, description="SASL password; a file is safer.")
    sasl_password_file: Path | None = Field(None, description="File that holds the SASL password.")
    ssl_cafile: Path | None = Field(None, description="CA certificates of the brokers, PEM.")
    ssl_certfile: Path | None = Field(None, description="Client certificate for mutual TLS, PEM.")
    ssl_keyfile: Path | None = Field(None, description="Private key of the client certificate, PEM.")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.security_protocol.startswith("SASL_") and not self.sasl_username:
            raise ValueError("this security_protocol needs sasl_username")
        self.password()
        return self

    @property
    def lacks_password(self) -> bool:
        return self.security_protocol.startswith("SASL_") and not self.password()

    def password(self) -> str | None:
        if self.sasl_password is not None:
            return self.sasl_password.get_secret_value()
        if self.sasl_password_file is None:
            return None
        try:
            return self.sasl_password_file.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise ValueError(f"sasl_password_file {self.sasl_password_file}: {error.strerror}") from error

    def client(self) -> dict[str, Any]:
        """Security arguments of any aiokafka client (everything but `bootstrap_servers`)."""
        arguments: dict[str, Any] = {"security_protocol": self.security_protocol}
        if self.security_protocol.startswith("SASL_"):
            arguments |= {
                "sasl_mechanism": self.sasl_mechanism,
                "sasl_plain_username": self.sasl_username,
                "sasl_plain_password": self.password(),
            }
        if self.security_protocol.endswith("SSL"):
            context = ssl.create_default_context(cafile=self.ssl_cafile)
            if self.ssl_certfile is not None:
                context.load_cert_chain(self.ssl_certfile, self.ssl_keyfile)
            arguments["ssl_context"] = context
        return arguments
