"""Why a connection does not come about although somebody listens there: asked by a TLS handshake of its own.

gRPC says the same "Socket closed" of most of it, and tries again for ever.
"""

import asyncio
import ssl

from fedstep.common.channel import Endpoint
from fedstep.common.errors import FedstepError, InvalidInputError, UnauthenticatedError, UntrustedError
from fedstep.common.proxy import connect
from fedstep.common.security import Security

TIMEOUT_S = 5.0
# OpenSSL's X509_V_ERR_…, as SSLCertVerificationError.verify_code has them.
_EXPIRED, _NOT_YET_VALID = 10, 9
_WRONG_NAME = (62, 64)  # a host's, an IP address's
_UNKNOWN_SIGNER = (2, 7, 18, 19, 20, 21)  # no issuer at hand, self-signed, or a signature that is not the issuer's


async def why_not(address: str, security: Security) -> FedstepError | None:
    """What keeps the two sides apart for good; None where nothing is found, so that a later attempt may succeed.

    Args:
        address: `HOST:PORT`.
        security: What the caller goes by.
    """
    if security.pair is not None:
        try:
            security.pair.check_ends()
        except InvalidInputError as error:
            return UnauthenticatedError(error.message)
    try:
        host, port = Endpoint(address).host_and_port
    except ValueError:
        return None  # a Unix socket
    try:
        dial = (host, port, await asyncio.to_thread(caller_context, security))
        async with asyncio.timeout(TIMEOUT_S):
            # Twice: a coordinator that goes away at this moment looks the same, and is gone the second time.
            heard = await _shake_hands(*dial) or await _shake_hands(*dial)
    except ssl.SSLCertVerificationError as error:
        return UntrustedError(_untrusted(address, host, error))
    except ssl.SSLError as error:
        if security.authorities is not None and error.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"):
            return UntrustedError(
                f"What listens at {address} speaks no TLS: start the coordinator with --tls-cert and --tls-key, "
                "or leave --tls-ca out."
            )
        return None
    except (OSError, ValueError):  # ValueError: a host that cannot be the name of one
        return None
    if security.authorities is None:
        return UnauthenticatedError(
            f"The coordinator at {address} speaks TLS only: give --tls-ca FILE with its CA's ca.crt, "
            "and --tls-cert and --tls-key, or --token-file."
        )
    return None if heard else UnauthenticatedError(_not_taken(address, security))


def caller_context(security: Security) -> ssl.SSLContext:
    """As gRPC has it; where no TLS is wanted, one that takes whatever answers."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["h2"])
    if security.authorities is None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        context.load_verify_locations(cadata=security.authorities.decode("ascii", "ignore"))
    if security.pair is not None:
        context.load_cert_chain(security.pair.file, security.pair.key_file)
    return context


async def _shake_hands(host: str, port: int, context: ssl.SSLContext) -> bool:
    """Whether the other side, its certificate accepted, takes us: it then says something, as HTTP/2 has it."""
    reader, writer = await connect(host, port, context)
    try:
        return bool(await reader.read(1))
    except (ssl.SSLError, ConnectionError):
        return False
    finally:
        writer.transport.abort()


def _untrusted(address: str, host: str, error: ssl.SSLCertVerificationError) -> str:
    whose = f"The certificate of the coordinator at {address}"
    if error.verify_code in _WRONG_NAME:
        return (
            f"{whose} is not for {host}: dial one of the names it was made for, "
            f"or make one with `fedstep pki coordinator {host}`."
        )
    if error.verify_code == _EXPIRED:
        return f"{whose} has expired: make a new one with `fedstep pki coordinator` and start the coordinator with it."
    if error.verify_code == _NOT_YET_VALID:
        return f"{whose} is not valid yet: set the clocks of both machines."
    if error.verify_code in _UNKNOWN_SIGNER:
        return (
            f"{whose} is signed by another CA than that of --tls-ca: give the ca.crt that `fedstep pki init` made "
            "where the coordinator's certificate was made."
        )
    return f"{whose} is not accepted ({error.verify_message}): make another one with `fedstep pki coordinator`."


def _not_taken(address: str, security: Security) -> str:
    if security.pair is None:
        return (
            f"The coordinator at {address} takes only callers with a certificate: give --tls-cert and --tls-key, "
            "made with `fedstep pki enroll`."
        )
    return (
        f"The coordinator at {address} does not take the certificate {security.pair.file}: enrol it with "
        "`fedstep pki enroll` where the CA is that the coordinator was given as --tls-ca."
    )
