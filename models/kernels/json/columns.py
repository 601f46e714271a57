"""What scanned texts say, as columns: times, table fields, base64, equal texts as one number."""

import numpy as np

from models.kernels.jit import kernel
from models.kernels.json.decimals import read_decimal
from models.kernels.json.scan import NULL, TEXT, ObjectMembers
from models.kernels.numbers import byte_at, mix64
from models.rows import F32, F64, I32, I64, U8, U64

MINUS, PLUS, DOT, COLON, UPPER_T, UPPER_Z, PAD = b"-+.:TZ="

NO_SEXTET = 1 << 24

_SEXTET = np.full(256, NO_SEXTET, np.int64)
_SEXTET[list(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")] = np.arange(64)
_MONTH_DAYS = np.array([0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31], np.int64)


@kernel
def digits_at(text: U8, at: int, count: int) -> int:
    """A number of `count` digits, -1 for anything else."""
    number = 0
    for place in range(at, at + count):
        digit = byte_at(text, place) - 48
        if digit < 0 or digit > 9:
            return -1
        number = 10 * number + digit
    return number


@kernel
def rfc3339(text: U8, at: int, end: int) -> float:
    """Seconds since 1970 of text[at:end], the float nearest to its microseconds; NaN for what is not read here.

    Read are: upper case, at most six decimals, no leap second, 1685 to 2255, where microseconds are exact floats.
    """
    if end - at < 20 or text[at + 4] != MINUS or text[at + 7] != MINUS or text[at + 10] != UPPER_T:
        return np.nan
    if text[at + 13] != COLON or text[at + 16] != COLON:
        return np.nan
    year, month, day = digits_at(text, at, 4), digits_at(text, at + 5, 2), digits_at(text, at + 8, 2)
    hour, minute, second = digits_at(text, at + 11, 2), digits_at(text, at + 14, 2), digits_at(text, at + 17, 2)
    if year < 1 or not 1 <= month <= 12 or not 0 <= hour <= 23 or not 0 <= minute <= 59 or not 0 <= second <= 59:
        return np.nan
    leap = month == 2 and year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    if day < 1 or day > _MONTH_DAYS[month] + leap:
        return np.nan
    at += 19
    micros = 0
    if text[at] == DOT:
        first = at + 1
        at = first
        while at < end and np.uint8(text[at] - np.uint8(48)) < 10:
            at += 1
        if not 1 <= at - first <= 6:
            return np.nan
        micros = digits_at(text, first, at - first)
        for _ in range(6 - (at - first)):
            micros *= 10
    offset_s = 0
    if end - at == 1 and text[at] == UPPER_Z:
        pass
    elif end - at == 6 and (text[at] == PLUS or text[at] == MINUS) and text[at + 3] == COLON:
        hours, minutes = digits_at(text, at + 1, 2), digits_at(text, at + 4, 2)
        if not 0 <= hours <= 23 or not 0 <= minutes <= 59:
            return np.nan
        offset_s = 3600 * hours + 60 * minutes
        if text[at] == MINUS:
            offset_s = -offset_s
    else:
        return np.nan
    seconds = 86_400 * days_from_civil(year, month, day) + 3600 * hour + 60 * minute + second - offset_s
    micros += 1_000_000 * seconds
    return np.float64(micros) / 1e6 if abs(micros) < 1 << 53 else np.nan


@kernel
def days_from_civil(year: int, month: int, day: int) -> int:
    """Days since 1970-01-01 in the Gregorian calendar (Hinnant 2013, "chrono-compatible low-level date algorithms")."""
    year -= month <= 2
    era = year // 400
    year_of_era = year - 400 * era
    day_of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    return era * 146_097 + year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year - 719_468


@kernel
def read_times(text: U8, kind: U8, start: I32, end: I32, seconds: F64) -> None:
    """Texts of n records, where kind is TEXT, to `seconds`; NaN for what is not read here."""
    for i in range(len(kind)):
        if kind[i] == TEXT:
            seconds[i] = rfc3339(text, start[i], end[i])


@kernel
def intern(text: U8, start: I32, end: I32, slots: I32, code: I32, first: I32) -> int:
    """Equal texts to equal numbers, 0 and up in order of appearance; how many there are.

    slots : (2 ** k,) -1 each, more than n   code : (n,)   first : (n,) by code, one of its rows
    """
    mask = np.uint64(len(slots) - 1)
    count = 0
    for i in range(len(start)):
        length = end[i] - start[i]
        hashed = np.uint64(14695981039346656037)  # FNV-1a; Fowler, Noll, Vo
        for place in range(start[i], end[i]):
            hashed = (hashed ^ np.uint64(text[place])) * np.uint64(1099511628211)
        slot = (hashed ^ (hashed >> np.uint64(29))) & mask
        while True:
            known = slots[slot]
            if known < 0:
                slots[slot] = count
                first[count] = i
                code[i] = count
                count += 1
                break
            other = first[known]
            if end[other] - start[other] == length and same(text, start[i], start[other], length):
                code[i] = known
                break
            slot = (slot + np.uint64(1)) & mask
    return count


@kernel
def same(text: U8, one: int, other: int, length: int) -> bool:
    for place in range(length):  # noqa: SIM110  # kernels have no generators
        if text[one + place] != text[other + place]:
            return False
    return True


@kernel
def gather(pool: F64, start: I32, out: F32) -> None:
    """Rows of `out` from where they begin in the pool."""
    for i in range(len(out)):
        for j in range(out.shape[1]):
            out[i, j] = np.float32(pool[start[i] + j])


@kernel
def copy_texts(text: U8, start: I32, end: I32, offsets: I32, out: U8) -> None:
    """Texts one behind the other. offsets : (n + 1,) where each begins in `out`."""
    for i in range(len(start)):
        for place in range(end[i] - start[i]):
            out[offsets[i] + place] = text[start[i] + place]


@kernel
def read_base64(text: U8, start: I32, end: I32, out: U8, clean: U8) -> None:
    """Base64 of exactly `width` bytes a row. out : (n, width)   clean : (n,) set to 0 where it is anything else."""
    width = out.shape[1]
    whole, rest = width - width % 3, width % 3
    for i in range(len(start)):
        at = int(start[i])
        if end[i] - at != 4 * ((width + 2) // 3):
            clean[i] = 0
            continue
        wrong = 0
        for place in range(0, whole, 3):
            four = sextets(text, at)
            wrong |= four
            out[i, place], out[i, place + 1], out[i, place + 2] = four >> 16, (four >> 8) & 255, four & 255
            at += 4
        if rest:
            padded = byte_at(text, at + 3) == PAD and (rest == 2 or byte_at(text, at + 2) == PAD)
            four = int(_SEXTET[byte_at(text, at)] << 18 | _SEXTET[byte_at(text, at + 1)] << 12)
            if rest == 2:
                four |= int(_SEXTET[byte_at(text, at + 2)]) << 6
                out[i, width - 1] = (four >> 8) & 255
            out[i, width - rest] = (four >> 16) & 255
            if not padded or four & (0xFF if rest == 2 else 0xFFFF):  # bits that say nothing are zeros
                wrong = NO_SEXTET
            wrong |= four
        if wrong >= NO_SEXTET:
            clean[i] = 0


@kernel
def sextets(text: U8, at: int) -> int:
    """Four characters as 24 bits, with NO_SEXTET or more where one is not of the alphabet."""
    first = _SEXTET[byte_at(text, at)] << 18 | _SEXTET[byte_at(text, at + 1)] << 12
    return int(first | _SEXTET[byte_at(text, at + 2)] << 6 | _SEXTET[byte_at(text, at + 3)])


@kernel
def read_fields(
    text: U8, begin: I32, end: I32, members: ObjectMembers, letters: U8, name_start: I64, slots: I32, names: I32,
    numeric: U8, salt: np.uint64, foreign: U64, plain: F64, text_start: I32, text_end: I32, rest: U64, clean: U8,
) -> None:  # fmt: skip
    """Members of n objects to columns. The last of several members of one name counts.

    begin, end : (n,) places among members   letters, name_start : (f + 1,) the fields' names, one behind the other
    slots : (2 ** k,) names by hash, -1 for none   names : (m,) scratch, field expected at each place, -1 each
    numeric : (f,) 1 for fields of numbers   foreign : (w,) scratch, names of a row that are no field's
    plain : (n, f) numbers, also those in quotes, true and false as 1 and 0, NaN for none
    text_start, text_end : (n, f), end -1 without text   rest : (n,) sum of `hash_number` and `hash_text` of all members
    that are no field's   clean : (n,) 0 where a field of numbers holds other text, where a name that is no field's is
    there twice, and with more than w of these
    """
    f = len(name_start) - 1
    for i in range(len(begin)):
        for j in range(f):
            plain[i, j] = np.nan
            text_end[i, j] = -1
        rest[i], clean[i], others = np.uint64(0), 1, 0
        for member in range(begin[i], end[i]):
            place = min(member - begin[i], len(names) - 1)
            key, length = members.key[member], members.key_end[member] - members.key[member]
            field = names[place]
            if field < 0 or not is_name(text, key, length, letters, name_start, field):
                field = find_name(text, key, length, letters, name_start, slots)
                names[place] = field
            kind, first, last = members.kind[member], members.start[member], members.end[member]
            if field < 0:
                name = hash_text(text, key, key + length, salt)
                if others == len(foreign) or is_among(foreign, others, name):
                    clean[i] = 0
                    continue
                foreign[others] = name
                others += 1
                if kind == TEXT:
                    rest[i] += hash_text(text, first, last, name)
                elif kind != NULL:
                    rest[i] += hash_number(members.number[member], name)
                continue
            plain[i, field] = np.nan
            text_end[i, field] = -1
            if kind == TEXT:
                text_start[i, field], text_end[i, field] = first, last
            elif kind != NULL:
                plain[i, field] = members.number[member]
        for j in range(f):
            if numeric[j] and text_end[i, j] >= 0:
                found = read_decimal(text, text_start[i, j])
                if found.end == text_end[i, j]:
                    plain[i, j] = found.value
                else:
                    clean[i] = 0


@kernel
def is_among(known: U64, count: int, wanted: np.uint64) -> bool:
    for place in range(count):  # noqa: SIM110  # kernels have no generators
        if known[place] == wanted:
            return True
    return False


@kernel
def hash_text(text: U8, start: int, end: int, salt: np.uint64) -> np.uint64:
    """A hash of text[start:end] for those who know the salt, eight bytes at a time and the length; others cannot look
    for two texts that share it."""
    hashed, word = salt, np.uint64(0)
    for place in range(start, end):
        shift = np.uint64(8 * ((place - start) & 7))
        word |= np.uint64(text[place]) << shift
        if shift == np.uint64(56):
            hashed, word = mix64(hashed ^ word), np.uint64(0)
    return mix64(mix64(hashed ^ word) ^ np.uint64(end - start))


@kernel
def hash_number(number: float, salt: np.uint64) -> np.uint64:
    """The same of a number; -0.0 is 0.0."""
    return mix64(salt ^ mix64(np.float64(number + 0.0).view(np.uint64)))


@kernel
def is_name(text: U8, key: int, length: int, letters: U8, name_start: I64, field: int) -> bool:
    start = name_start[field]
    if name_start[field + 1] - start != length:
        return False
    for place in range(length):  # noqa: SIM110  # kernels have no generators
        if text[key + place] != letters[start + place]:
            return False
    return True


@kernel
def hash_name(letters: U8, start: int, length: int) -> np.uint64:
    """FNV-1a, folded; uint64."""
    hashed = np.uint64(14695981039346656037)
    for place in range(start, start + length):
        hashed = (hashed ^ np.uint64(letters[place])) * np.uint64(1099511628211)
    return hashed ^ (hashed >> np.uint64(29))


@kernel
def find_name(text: U8, key: int, length: int, letters: U8, name_start: I64, slots: I32) -> int:
    mask = np.uint64(len(slots) - 1)
    slot = hash_name(text, key, length) & mask
    while slots[slot] >= 0:
        if is_name(text, key, length, letters, name_start, slots[slot]):
            return int(slots[slot])
        slot = (slot + np.uint64(1)) & mask
    return -1


@kernel
def place_names(letters: U8, name_start: I64, slots: I32) -> None:
    """Names into the table of slots that `find_name` reads. slots : (2 ** k,) -1 each, more than f."""
    mask = np.uint64(len(slots) - 1)
    for field in range(len(name_start) - 1):
        slot = hash_name(letters, name_start[field], name_start[field + 1] - name_start[field]) & mask
        while slots[slot] >= 0:
            slot = (slot + np.uint64(1)) & mask
        slots[slot] = field
