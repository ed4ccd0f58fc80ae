"""Single passes over the events of sequences, one sequence after another: from values to table rows."""

from libc.math cimport isinf, isnan, NAN
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t

from service.encoding.met cimport Kept, Met, longest

import numpy as np

cdef Py_ssize_t LEAST_GIVEN = 16  # one value in so many is given, where there are more than a few


def columns(rows, Py_ssize_t most):
    """What dicts hold by key, {key: list}, None where one does not have it.

    Returns: the place of the first that is no dict, where there is one; None if there were more than `most` values, and
        nearly all of them None.
    """
    cdef dict found = {}
    cdef list values
    cdef Py_ssize_t at = 0, given = 0, count = len(rows)
    for row in rows:
        if not isinstance(row, dict):
            return at
        given += len(<dict>row)
        at += 1
    most, at = max(most, LEAST_GIVEN * given), 0
    for row in rows:
        for name, value in (<dict>row).items():
            kept = found.get(name)
            if kept is None:
                if (len(found) + 1) * count > most:
                    return None
                kept = found[name] = [None] * count
            values = kept
            values[at] = value
        at += 1
    return found


def known_as(dict known, values):
    """Int64 (T,), what each value is known as, and a list of the places of those that are not known.

    Raises TypeError on a value that has no hash.
    """
    found, others = np.empty(len(values), dtype=np.int64), []
    cdef int64_t[::1] out = found
    cdef Py_ssize_t t = 0
    cdef object number
    for value in values:
        number = known.get(value)
        if number is None:
            others.append(t)
        else:
            out[t] = number
        t += 1
    return found, others


def finite(values):
    """Float64 (T,) of finite numbers and of None, which becomes NaN; None if any value is something else."""
    found = np.empty(len(values))
    cdef double[::1] out = found
    cdef Py_ssize_t t = 0
    cdef double number
    for value in values:
        if value is None:
            number = NAN
        elif type(value) is float:
            number = value
        elif type(value) is int and -(1 << 62) < value < 1 << 62:
            number = <int64_t>value
        else:
            return None
        if isinf(number):
            return None
        out[t] = number
        t += 1
    return found


def laid(const int64_t[:] lengths):
    """See `Events`: starts, owner and at; raises ValueError on a sequence without events."""
    cdef Py_ssize_t n, i, t = 0, total = 0
    for n in range(lengths.shape[0]):
        if lengths[n] < 1:
            raise ValueError("a sequence has at least one event")
        total += lengths[n]
    first, of = np.empty(lengths.shape[0], dtype=np.int64), np.empty((2, total), dtype=np.int64)
    cdef int64_t[::1] starts = first
    cdef int64_t[:, ::1] out = of
    for n in range(lengths.shape[0]):
        starts[n] = t
        for i in range(lengths[n]):
            out[0, t], out[1, t] = n, i
            t += 1
    return first, of[0], of[1]


def timing(const double[:] ts, const int64_t[:] starts, const int64_t[:] lengths):
    """Of each sequence, as bool (N,), whether all its times are told, and whether any is; whether all are in order.

    A sequence is in order where a time is missing, too.
    """
    every, some = np.empty(starts.shape[0], dtype=bool), np.empty(starts.shape[0], dtype=bool)
    cdef uint8_t[::1] all_told = every.view(np.uint8), any_told = some.view(np.uint8)
    cdef Py_ssize_t n, t, told
    cdef bint ascends, in_order = True
    for n in range(starts.shape[0]):
        told, ascends = 0, True
        for t in range(starts[n], starts[n] + lengths[n]):
            told += not isnan(ts[t])
            ascends &= t == starts[n] or not ts[t] < ts[t - 1]
        all_told[n], any_told[n] = told == lengths[n], told > 0
        in_order &= ascends or told < lengths[n]
    return every, some, in_order


def before(const double[:] values, const int64_t[:] starts):
    """See `Events.before`."""
    found = np.empty(values.shape[0])
    cdef double[::1] out = found
    cdef Py_ssize_t t, n
    for t in range(1, values.shape[0]):
        out[t] = values[t - 1]
    for n in range(starts.shape[0]):
        out[starts[n]] = NAN
    return found


def met(const int64_t[:] codes, const int64_t[:] starts, const int64_t[:] lengths):
    """See `Events.met`."""
    since, of = np.empty(codes.shape[0], dtype=np.int64), np.zeros((2, starts.shape[0]), dtype=np.int64)
    cdef int64_t[::1] ago = since
    cdef int64_t[:, ::1] out = of
    cdef Met seen = Met(longest(lengths))
    cdef Py_ssize_t n, t
    cdef Kept *kept
    for n in range(starts.shape[0]):
        for t in range(starts[n], starts[n] + lengths[n]):
            kept = seen.of(codes[t])
            ago[t] = t - kept.last if kept.count else 0
            kept.count += 1
            kept.last = t
            out[1, n] = max(out[1, n], kept.count)
        out[0, n] = seen.n
        seen.forget()
    return since, of[0], of[1]


def pairs(const int64_t[:] left, const int64_t[:] right, const int64_t[:] at, Py_ssize_t lag, const int32_t[:, :] table,
          const int64_t[:] keys, int64_t unknown, int64_t missing, int64_t first):
    """See `Pairs.find`: by the table, or by the keys where that is None."""
    found = np.empty(left.shape[0], dtype=np.int64)
    cdef int64_t[::1] out = found
    cdef Py_ssize_t t, low, high, middle
    cdef int64_t key
    for t in range(left.shape[0]):
        if at[t] < lag:
            out[t] = missing
        elif table is not None:
            out[t] = table[min(left[t], table.shape[0] - 1), min(right[t - lag], table.shape[1] - 1)]
        else:
            key, low, high = left[t] << 32 | right[t - lag], 0, keys.shape[0]
            while low < high:
                middle = (low + high) // 2
                if keys[middle] < key:
                    low = middle + 1
                else:
                    high = middle
            out[t] = first + low if low < keys.shape[0] and keys[low] == key else unknown
    return found


def bags(list ids, const int64_t[:, ::1] places, int32_t[:, ::1] rows, const int64_t[:] starts,
         const int64_t[:] lengths, int64_t missing):
    """Puts the rows of fields in their slots, but where a sequence has no value of a field in any event.

    Args:
        ids: for each of F fields, int64 (T,).
        places: (F, 2), the slot of each field, and the first of its rows.
        rows: (T, slots), in which it puts them.

    Returns: bool (N, F), the fields of which a sequence has no value.
    """
    lacks = np.empty((starts.shape[0], len(ids)), dtype=bool)
    cdef uint8_t[:, ::1] none = lacks.view(np.uint8)
    cdef const int64_t[:] of
    cdef Py_ssize_t f, n, t, end
    for f in range(len(ids)):
        of = ids[f]
        for n in range(starts.shape[0]):
            t, end = starts[n], starts[n] + lengths[n]
            while t < end and of[t] == missing:
                t += 1
            none[n, f] = t == end
            for t in range(t if t == end else starts[n], end):
                rows[t, places[f, 0]] = <int32_t>(places[f, 1] + of[t])
    return lacks


def behind_cls(const int32_t[:, ::1] of_cls, const int32_t[:, ::1] rows, const int32_t[:] speaks,
               const int32_t[:] belongs, const int64_t[:] sizes):
    """Each sequence's positions behind its [CLS], which speaks for no event: rows, and the events, as those given."""
    cdef Py_ssize_t n, i, k, at = 0, start = 0, slots = rows.shape[1], total = rows.shape[0] + of_cls.shape[0]
    positions, of = np.empty((total, slots), dtype=np.int32), np.empty((2, total), dtype=np.int32)
    cdef int32_t[:, ::1] out = positions, events = of
    for n in range(sizes.shape[0]):
        for k in range(slots):
            out[at, k] = of_cls[n, k]
        events[0, at] = events[1, at] = -1
        at += 1
        for i in range(start, start + sizes[n]):
            for k in range(slots):
                out[at, k] = rows[i, k]
            events[0, at], events[1, at] = speaks[i], belongs[i]
            at += 1
        start += sizes[n]
    return positions, of[0], of[1]


def named(const uint64_t[:, :, ::1] of, uint64_t odd, const double[:] ts, const uint8_t[:] timed,
          const int32_t[:] places, const int64_t[:] starts, const int64_t[:] lengths):
    """See `held.of_events`.

    Args:
        of: (2, K, T), the key of each of K identifiers, 0 where there is none, and which sides tell it, 0 for none.
        odd: what spreads sides over all bits.
        ts, timed, places: (T,), (N,), (T,), as of `Events`.

    Returns: keys, sided, ts and events of all that is named, as of `Held`; int64 (N + 1,), where each sequence starts.
    """
    cdef Py_ssize_t n, t, k, at = 0, most = of.shape[1] * of.shape[2]
    pair, when = np.empty((2, most), dtype=np.uint64), np.empty(most)
    event, bound = np.empty(most, dtype=np.int32), np.zeros(starts.shape[0] + 1, dtype=np.int64)
    cdef uint64_t[:, ::1] keys = pair
    cdef double[::1] times = when
    cdef int32_t[::1] events = event
    cdef int64_t[::1] bounds = bound
    for n in range(starts.shape[0]):
        for t in range(starts[n], starts[n] + lengths[n]):
            for k in range(of.shape[1]):
                if of[0, k, t]:
                    keys[0, at] = of[0, k, t]
                    keys[1, at] = of[0, k, t] ^ (2 * of[1, k, t] + 1) * odd if of[1, k, t] else 0
                    times[at] = ts[t] if timed[n] else NAN
                    events[at] = places[t]
                    at += 1
        bounds[n + 1] = at
    return pair[0, :at], pair[1, :at], when[:at], event[:at], bound


def binned(const double[:] values, const double[:] edges, int64_t missing, int64_t first):
    """See `fields.binned`."""
    found = np.empty(values.shape[0], dtype=np.int64)
    cdef int64_t[::1] out = found
    cdef Py_ssize_t t, low, high, middle
    for t in range(values.shape[0]):
        if values[t] != values[t]:
            out[t] = missing
            continue
        low, high = 0, edges.shape[0]
        while low < high:
            middle = (low + high) // 2
            if values[t] < edges[middle]:
                high = middle
            else:
                low = middle + 1
        out[t] = first + low
    return found


def used(list parts, int32_t roles):
    """See `Usage.of`.

    Args:
        parts: int32 (Q, slots) of each sequence.
        roles: the last of the rows of roles, which are not counted.
    """
    cdef Py_ssize_t n, q, k, start, at = 0, most = 0, total = 0
    cdef int32_t highest = 0
    cdef const int32_t[:, :] rows
    for one in parts:
        rows = one
        most, total = max(most, one.size), total + one.size
        for q in range(rows.shape[0]):
            for k in range(rows.shape[1]):
                highest = max(highest, rows[q, k])
    of, count = np.empty((2, total), dtype=np.int64), np.empty(total)
    cdef int64_t[:, ::1] out = of
    cdef double[::1] counts = count
    cdef Met seen = Met(min(most, <Py_ssize_t>highest + 1))
    for n in range(len(parts)):
        rows, start = parts[n], at
        for q in range(rows.shape[0]):
            for k in range(rows.shape[1]):
                if rows[q, k] > roles:
                    seen.of(rows[q, k]).count += 1
        for k in range(seen.n):
            out[0, at], out[1, at] = n, seen.kept[seen.places[k]].value
            at += 1
        of[1, start:at].sort()
        for k in range(start, at):
            counts[k] = seen.of(out[1, k]).count
        seen.forget()
    return of[0, :at].copy(), of[1, :at].copy(), count[:at].copy()
