"""Compares the events of a sequence with those before and behind them: see `Habit` and `Change`.

Values of events are numbers from 0.
"""

from libc.math cimport ceil, exp, log, pow, rint, sqrt, INFINITY, NAN
from libc.stdint cimport int64_t, uint8_t, uint32_t

from service.encoding.met cimport Kept, Met, longest

import numpy as np

cdef double NEVER = 1e15  # more events than there are

def recalled(remembered, const uint32_t[:, :] tokens, const int64_t[:] starts, const int64_t[:] lengths, double decay,
             double least_rest, double slack):
    """See `habit.Recall`.

    Args:
        remembered: N, as of `Events`.
        tokens: (T, S), as of `Events`.
        decay, least_rest, slack: DECAY, LEAST_REST and SLACK.

    Returns: `Recall.events`, `Recall.counts` and `Recall.lost`.
    """
    cdef Py_ssize_t n = 0, t, s, start, end, sources = tokens.shape[1]
    shape = tokens.shape[0], sources
    total, count, gone = np.zeros(starts.shape[0]), np.zeros(shape), np.zeros(shape, dtype=bool)
    cdef double[::1] events = total
    cdef double[:, ::1] out = count
    cdef uint8_t[:, ::1] lost = gone.view(np.uint8)
    cdef const uint32_t[:] known
    cdef const double[:] counts
    cdef Met seen = Met(sources * longest(lengths))
    cdef double whole, rest, weight, grown, held
    cdef bint own, full
    for n, one in enumerate(remembered):
        if one is None:
            continue
        start, end = starts[n], starts[n] + lengths[n]
        known, counts, own, full, whole = one.tokens, one.counts, one.own, one.full, one.events
        rest, grown = whole, pow(decay, -<double>lengths[n]) if own else 1.0
        if own:
            for t in range(start, end):
                weight = pow(decay, end - 1 - t)
                rest -= weight
                for s in range(sources):
                    seen.of(tokens[t, s]).weight += weight
            if rest < least_rest * whole:
                rest = 0.0  # of so little left, rounding says more than habits
        for t in range(start, end):
            for s in range(sources):
                held, weight = count_of(tokens[t, s], known, counts), 0.0
                if own:
                    weight = seen.of(tokens[t, s]).weight
                held = 0.0 if held < (1 + slack) * weight else held - weight
                # where there was no room for all values, one that is not counted may have been there
                lost[t, s] = full and held == 0
                out[t, s] = held * grown if rest > 0 else 0.0
        events[n] = max(rest, 0.0) * grown
        seen.forget()
    return total, count, gone


cdef inline double count_of(uint32_t token, const uint32_t[:] known, const double[:] counts) noexcept nogil:
    """How often a value was held, where those that were are ascending."""
    cdef Py_ssize_t low = 0, high = known.shape[0], middle
    while low < high:
        middle = (low + high) // 2
        if known[middle] < token:
            low = middle + 1
        else:
            high = middle
    return counts[low] if low < known.shape[0] and known[low] == token else 0.0


cdef inline double log_ratio(Met seen, const int64_t[:] values, const int64_t[:] ids, const double[:] share,
                             double strength, double past, const double[:, :] recalled, const uint8_t[:, :] lost,
                             Py_ssize_t s, Py_ssize_t t) noexcept nogil:
    """How much likelier a value is for an account that held it so often in its past than for anybody."""
    cdef double held = seen.of(values[t]).count
    if recalled is not None:
        held += recalled[t, s]
        if lost[t, s] and held == 0:
            return 0.0
    return log((held / share[ids[t]] + strength) / (past + strength))


def habits(list values, list ids, list shares, const double[:] strengths, const int64_t[:] starts,
           const int64_t[:] lengths, const double[:] earlier, const double[:, :] recalled, const uint8_t[:, :] lost,
           const int64_t[:] latest, Py_ssize_t lag, Py_ssize_t least, int64_t missing, double most):
    """See `habit.compared_with_past`.

    Args:
        values, ids: of each of S sources, int64 (T,): what is told apart, and the id of each.
        shares: of each source, float64, the log's share of each id.
        earlier, recalled, lost: as of `Recall`; None for the latter two where nothing is remembered.
        latest, lag, least, missing, most: LATEST, LAG, LEAST_PAST, MISSING and MOST.
    """
    cdef Py_ssize_t n, s, t, k, start, end, past, events = len(values[0]), kinds = latest.shape[0]
    of_each, means = np.full(events, NAN), np.full((starts.shape[0], kinds), NAN)
    sums, any_told = np.zeros((1 + kinds, events)), np.zeros(events, dtype=np.uint8)
    cdef double[::1] each = of_each
    cdef double[:, ::1] mean = means, total = sums
    cdef uint8_t[::1] told = any_told
    cdef Met seen = Met(longest(lengths))
    cdef const int64_t[:] value, id_
    cdef const double[:] share
    cdef double ratio, root = sqrt(len(values))
    for s in range(len(values)):
        value, id_, share = values[s], ids[s], shares[s]
        for n in range(starts.shape[0]):
            start, end = starts[n], starts[n] + lengths[n]
            for t in range(start, end):
                told[t] |= id_[t] != missing
            past = start
            for t in range(_first_told(start, earlier[n], lag, least), end):
                while past < t - lag:
                    seen.of(value[past]).count += 1
                    past += 1
                if id_[t] != missing:
                    ratio = log_ratio(seen, value, id_, share, strengths[s], past - start + earlier[n], recalled, lost,
                                      s, t)
                    total[0, t] += min(max(ratio, -most), most) / root
            seen.forget()
            past = start
            for k in range(kinds - 1, -1, -1):
                if not _is_long(lengths[n], earlier[n], latest[k], least):
                    continue
                while past < end - latest[k]:
                    seen.of(value[past]).count += 1
                    past += 1
                for t in range(past, end):
                    if id_[t] != missing:
                        ratio = log_ratio(seen, value, id_, share, strengths[s], past - start + earlier[n], recalled,
                                          lost, s, t)
                        total[1 + k, t] += min(max(ratio, -most), most) / root
            seen.forget()
    for n in range(starts.shape[0]):
        end = starts[n] + lengths[n]
        for t in range(_first_told(starts[n], earlier[n], lag, least), end):
            if told[t]:
                each[t] = total[0, t]
        for k in range(kinds):
            if _is_long(lengths[n], earlier[n], latest[k], least):
                ratio, past = 0.0, 0
                for t in range(end - latest[k], end):
                    ratio += total[1 + k, t]
                    past += told[t]
                mean[n, k] = ratio / past if past else NAN
    return of_each, means


cdef inline Py_ssize_t _first_told(Py_ssize_t start, double earlier, Py_ssize_t lag, Py_ssize_t least) noexcept nogil:
    """The first event whose past is long enough."""
    cdef double lacking = least - earlier
    if not lacking < NEVER:
        return start + <Py_ssize_t>NEVER  # also where it is not a number
    return start if lacking <= 0 else start + lag + <Py_ssize_t>ceil(lacking)


cdef inline bint _is_long(int64_t length, double earlier, int64_t latest, Py_ssize_t least) noexcept nogil:
    return length >= latest and length + earlier >= latest + least


def support(list ids, const double[:] counts, list priors, double total, const int64_t[:] starts,
            const int64_t[:] lengths, int64_t missing):
    """See `Change.support`; also bool (N,), whether any source has a value in any event of a sequence."""
    cdef Py_ssize_t n, s, t, start, end, count = starts.shape[0], events = len(ids[0])
    cdef Kept *kept
    found, any_told = np.empty(events), np.zeros(count, dtype=bool)
    drawn_, back_, all_counts = np.zeros(events), np.zeros(events), np.zeros(count)
    cdef double[::1] out = found, drawn = drawn_, drawn_back = back_, all_count = all_counts
    cdef uint8_t[::1] told = any_told.view(np.uint8)
    cdef Met seen = Met(longest(lengths))
    cdef const int64_t[:] value
    cdef const double[:] prior
    cdef double before, after, whole, weight
    for s in range(len(ids)):
        value, prior, weight = ids[s], priors[s], counts[s]
        for n in range(count):
            start, end = starts[n], starts[n] + lengths[n]
            t = start
            while t < end and value[t] == missing:
                t += 1
            if t == end:
                continue  # a source that has no value in any event says nothing
            told[n] = True
            all_count[n] += weight
            for t in range(start, end):
                kept = seen.of(value[t])
                drawn[t] += weight * log(kept.count + prior[value[t]])
                kept.count += 1
            for t in range(start, end):
                kept = seen.of(value[t])
                kept.count -= 1
                drawn_back[t] += weight * log(kept.count + prior[value[t]])
            seen.forget()
    for n in range(count):
        start, end = starts[n], starts[n] + lengths[n]
        before = after = whole = 0.0
        for t in range(start, end):
            drawn[t] -= all_count[n] * log(t - start + total)
            drawn_back[t] -= all_count[n] * log(end - 1 - t + total)
            whole += drawn[t]
            after += drawn_back[t]
        for t in range(start, end):
            out[t] = before + after - whole
            before += drawn[t]
            after -= drawn_back[t]
        out[start] = -INFINITY
    return found, any_told


def odds_of_change(const double[:] support, const int64_t[:] starts, const int64_t[:] lengths):
    """Log odds that somebody else took over before or at each event, float64 (T,), by the support of each place."""
    found = np.empty(support.shape[0])
    cdef double[::1] out = found
    cdef Py_ssize_t n, t, start, end
    cdef double most, changed, total, several
    for n in range(starts.shape[0]):
        start, end = starts[n], starts[n] + lengths[n]
        several = log(max(lengths[n] - 1, 1))
        most = changed = total = 0.0
        for t in range(start, end):
            most = max(most, support[t] - several)
        for t in range(start, end):
            out[t] = exp(support[t] - several - most)
            total += out[t]
        for t in range(start, end):
            changed += out[t]
            out[t] = log(max(changed, 1e-12) / max(exp(-most) + max(total - changed, 0.0), 1e-12))
    return found


def steps(const double[:] odds, const uint8_t[:] told, const int64_t[:] starts, const int64_t[:] lengths,
          int64_t limit, int64_t missing, int64_t first):
    """The ids of log odds, see `Change`: rounded, and within a limit; lowest for the first event of a sequence."""
    found = np.empty(odds.shape[0], dtype=np.int64)
    cdef int64_t[::1] out = found
    cdef Py_ssize_t n, t
    for n in range(starts.shape[0]):
        for t in range(starts[n], starts[n] + lengths[n]):
            # rounded first, so that sums over other neighbours do not tip a tie
            out[t] = first + limit + <int64_t>min(max(rint(rint(odds[t] * 1e6) / 1e6), -limit), limit)
        out[starts[n]] = first
        if not told[n]:
            for t in range(starts[n], starts[n] + lengths[n]):
                out[t] = missing
    return found
