"""Numbers of the Handle protocol: operations, response codes, flags, ports, limits.

Source: RFC 3652 with the changes of protocol 2.11 (HSv9), and the additions of China's public SDKs where marked.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag

ENVELOPE_OCTETS = 20
HEADER_OCTETS = 24
MESSAGE_OCTETS_MAX = 262_144  # after the envelope
DATAGRAM_OCTETS_MAX = 512
CHUNK_OCTETS_MAX = DATAGRAM_OCTETS_MAX - ENVELOPE_OCTETS
HANDLE_OCTETS_MAX = 2_048
VALUES_MAX = 2_048
LIST_ITEMS_MAX = 2_048  # indexes, and types, of one question
LIST_BATCH_NAMES_MAX = 50  # names in one message of a list answer
RECURSION_MAX = 10
EXPIRATION_S = 43_200  # an answer with 0 or a past time is refused by the standard resolver
SERIAL_UNKNOWN = 0xFFFF
TTL_S_DEFAULT = 86_400
TTL_S_MAX = 172_800  # what resolvers keep at most

HTTP_TUNNEL_TYPE = "application/x-hdl-message"  # POST /<handle>: envelope and message as the body, both ways
PORT_DEFAULT = 2641
PORT_HTTP_DEFAULT = 8000


class OpCode(IntEnum):
    RESOLUTION = 1
    GET_SITE_INFO = 2
    CREATE_HANDLE = 100
    DELETE_HANDLE = 101
    ADD_VALUE = 102
    REMOVE_VALUE = 103
    MODIFY_VALUE = 104
    LIST_HANDLES = 105
    LIST_NA = 106
    CHALLENGE_RESPONSE = 200
    VERIFY_CHALLENGE = 201
    HOME_NA = 300
    UNHOME_NA = 301
    LIST_HOMED_NAS = 302
    SESSION_SETUP = 400
    SESSION_TERMINATE = 401
    SESSION_EXCHANGEKEY = 402
    GET_NEXT_TXN_ID = 1000
    RETRIEVE_TXN_LOG = 1001
    DUMP_HANDLES = 1002
    BACKUP_SERVER = 1003
    LOGIN = 2000  # China
    LOGIN_ID_SYSTEM = 2001  # China


class ResponseCode(IntEnum):
    RESERVED = 0
    SUCCESS = 1
    ERROR = 2
    SERVER_TOO_BUSY = 3
    PROTOCOL_ERROR = 4
    OPERATION_NOT_SUPPORTED = 5
    RECURSION_COUNT_TOO_HIGH = 6
    SERVER_BACKUP = 7
    HANDLE_NOT_FOUND = 100
    HANDLE_ALREADY_EXISTS = 101
    INVALID_HANDLE = 102
    VALUES_NOT_FOUND = 200
    VALUE_ALREADY_EXISTS = 201
    INVALID_VALUE = 202
    OUT_OF_DATE_SITE_INFO = 300
    SERVER_NOT_RESP = 301
    SERVICE_REFERRAL = 302
    PREFIX_REFERRAL = 303
    INVALID_ADMIN = 400
    INSUFFICIENT_PERMISSIONS = 401
    AUTHENTICATION_NEEDED = 402
    AUTHENTICATION_FAILED = 403
    INVALID_CREDENTIAL = 404
    AUTHEN_TIMEOUT = 405
    AUTHEN_ERROR = 406
    RELOGIN = 407  # China
    LOGIN_FIRST = 408  # China
    SESSION_TIMEOUT = 500
    SESSION_FAILED = 501
    INVALID_SESSION_KEY = 502
    NEED_RSAKEY = 503
    INVALID_SESSIONSETUP = 504
    SESSION_MESSAGE_REJECTED = 505
    CLIENT_CHANNEL_ERROR = 601  # China, as are the next five
    CLIENT_TIME_OUT = 602
    REQUEST_LIMIT_DAILY = 603
    REGISTER_COUNT_LIMIT = 604
    PREFIX_LIMIT = 605
    VERIFY_CREDENTIAL_FAILED = 3001
    TRYING = 900  # RFC 3652 only, as are the next two
    FORWARDED = 901
    QUEUED = 902


class OpFlag(IntFlag):
    AUTHORITATIVE = 0x80000000
    CERTIFY = 0x40000000
    ENCRYPT = 0x20000000
    RECURSIVE = 0x10000000
    CACHE_CERTIFY = 0x08000000
    CONTINUOUS = 0x04000000
    KEEP_CONNECTION = 0x02000000
    PUBLIC_ONLY = 0x01000000
    REQUEST_DIGEST = 0x00800000
    OVERWRITE = 0x00400000
    MINT = 0x00200000
    DO_NOT_REFER = 0x00100000
    RECURSIVE_AUTH = 0x00000004  # China: the recursive node forwards the user's identity


FLAGS_DEFAULT = OpFlag.RECURSIVE | OpFlag.CACHE_CERTIFY | OpFlag.PUBLIC_ONLY


class EnvelopeFlag(IntFlag):
    COMPRESSED = 0x80
    ENCRYPTED = 0x40
    TRUNCATED = 0x20


class DigestType(IntEnum):
    MD5 = 1
    SHA1 = 2
    SHA256 = 3


HTTP_STATUS = {
    ResponseCode.SUCCESS: 200,
    ResponseCode.VALUES_NOT_FOUND: 400,  # 200 on resolution
    ResponseCode.SERVICE_REFERRAL: 300,
    ResponseCode.PREFIX_REFERRAL: 300,
    ResponseCode.HANDLE_NOT_FOUND: 404,
    ResponseCode.HANDLE_ALREADY_EXISTS: 409,
    ResponseCode.VALUE_ALREADY_EXISTS: 409,
    ResponseCode.PROTOCOL_ERROR: 400,
    ResponseCode.INVALID_HANDLE: 400,
    ResponseCode.INVALID_VALUE: 400,
    ResponseCode.SERVER_NOT_RESP: 400,
    ResponseCode.OPERATION_NOT_SUPPORTED: 501,
    ResponseCode.SERVER_TOO_BUSY: 503,
    ResponseCode.SERVER_BACKUP: 503,
    ResponseCode.AUTHENTICATION_NEEDED: 401,
    ResponseCode.INVALID_ADMIN: 403,
    ResponseCode.INSUFFICIENT_PERMISSIONS: 403,
    ResponseCode.AUTHENTICATION_FAILED: 403,
    ResponseCode.INVALID_CREDENTIAL: 403,
    ResponseCode.REGISTER_COUNT_LIMIT: 403,  # ours: trying again does not help
}


def http_status(code: int, *, op_code: int = OpCode.RESOLUTION, created: bool = False) -> int:
    """HTTP status of a response code.

    Args:
        code: response code.
        op_code: VALUES_NOT_FOUND is a success of a resolution alone.
        created: the request created or added without overwriting: success is 201.
    """
    if code == ResponseCode.SUCCESS and created:
        return 201
    if code == ResponseCode.VALUES_NOT_FOUND and op_code == OpCode.RESOLUTION:
        return 200
    return HTTP_STATUS.get(code, 500)  # type: ignore[call-overload, no-any-return]
