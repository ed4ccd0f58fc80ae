"""Weighs evidence: the arithmetic of `calibration` and `false_alarms`, one sequence after another.

No sum runs over several sequences, so a score never depends on what is scored beside it.
"""

from libc.math cimport exp, isnan, log, pow, INFINITY
from libc.stdint cimport int64_t

import numpy as np

STEEPNESS = 8.0  # log odds between a usual measure and the place of its alarm
EVENT_POWER = 0.25  # of a sequence's score: at 1 events of missed anomalies look genuine, at 0 all look anomalous

cdef double STEEP = STEEPNESS, POWER = EVENT_POWER


cdef inline double sigmoid(double x) noexcept nogil:
    return 1 / (1 + exp(-x))


cdef inline double log_distance(double novelty) noexcept nogil:
    """Natural logarithm of a distance, defined at 0."""
    return log(max(novelty, 1e-6))


cdef class Weighing:
    """The numbers of one `Calibration`."""

    cdef const double[:, ::1] weights
    cdef const double[::1] bias
    cdef const double[:, :, ::1] alarm
    cdef const double[::1] most
    cdef const double[:, ::1] within
    cdef double event_weight, event_bias
    cdef tuple given

    def __init__(self, weights, bias, alarm_weight, alarm_at, alarm_most, double event_weight, double event_bias,
                 within):
        self.given = (weights, bias, alarm_weight, alarm_at, alarm_most, event_weight, event_bias, within)
        self.weights, self.bias = np.array(weights, dtype=np.float64), np.array(bias, dtype=np.float64)
        self.alarm = np.array((alarm_weight, alarm_at), dtype=np.float64)
        self.most = np.array(alarm_most, dtype=np.float64)
        self.event_weight, self.event_bias = event_weight, event_bias
        self.within = np.array(within, dtype=np.float64).reshape(-1, 4)

    def __reduce__(self):
        return Weighing, self.given

    def weighed(self, const double[:] network, const double[:] foreign, const double[:] linear,
                const double[:] association, const double[:] novelty, const double[:] straying,
                const int64_t[:] of):
        """See `Calibration.weighed`; `of`, int64 (N,), is each sequence's bin of length."""
        found = np.empty(of.shape[0])
        cdef double[::1] out = found
        cdef const double[:] w
        cdef Py_ssize_t i
        for i in range(of.shape[0]):
            w = self.weights[of[i]]
            out[i] = (network[i] * w[0] + foreign[i] * w[1] + linear[i] * w[2] + association[i] * w[3]
                      + log_distance(novelty[i]) * w[4] + straying[i] * w[5] + self.bias[of[i]])
        return found

    cdef double sure(self, Py_ssize_t alarm, double measure, Py_ssize_t of) noexcept nogil:
        """How sure an alarm is of a measure in a bin of length; 0 where the measure is not known."""
        cdef double z, most = self.most[alarm]
        if most == 0.0 or isnan(measure):
            return 0.0
        z = self.alarm[0, alarm, of] * (measure - self.alarm[1, alarm, of])
        # what lies farther beyond is surer, so that the surest are told apart
        return 1 - (1 - most * sigmoid(z)) * exp(-max(z, 0.0) / STEEP)

    def alarms(self, const double[:] novelty, const double[:, :] measures, const int64_t[:] of):
        """See `Calibration.alarms`."""
        cdef Py_ssize_t count = measures.shape[1], i, k
        found = np.empty((of.shape[0], 1 + count))
        cdef double[:, ::1] out = found
        for i in range(of.shape[0]):
            out[i, 0] = self.sure(0, log_distance(novelty[i]), of[i])
            for k in range(count):
                out[i, 1 + k] = self.sure(1 + k, measures[i, k], of[i])
        return found

    def event_scores(self, const double[:] score, const int64_t[:] lengths, const int64_t[:] of,
                     const double[:, :] types, const double[:] changed, const double[:] events,
                     const double[:] foreign, const double[:] surges, Py_ssize_t surge, const double[:] by_novelty):
        """See `Calibration.event_scores`; `surge` is the place of that alarm."""
        cdef Py_ssize_t i, t, k, start = 0, count = self.within.shape[0]
        found, of_type = np.empty(events.shape[0]), np.empty(max(count, 1))
        cdef double[::1] out = found, odds = of_type
        cdef double of_sequence, total, highest, most, one
        for i in range(lengths.shape[0]):
            of_sequence = pow(score[i], POWER)
            if count:
                highest = types[i, 0]
                for k in range(1, count):
                    highest = max(highest, types[i, k])
                total = 0.0
                for k in range(count):
                    odds[k] = exp(types[i, k] - highest)
                    total += odds[k]
                for k in range(count):
                    odds[k] /= total
            most = -INFINITY
            for t in range(start, start + lengths[i]):
                most = max(most, changed[t])
            for t in range(start, start + lengths[i]):
                if count:
                    one = 0.0
                    for k in range(count):
                        one += odds[k] * sigmoid(changed[t] * self.within[k, 0] + events[t] * self.within[k, 1]
                                                 + foreign[t] * self.within[k, 2] + self.within[k, 3])
                else:
                    one = sigmoid(self.event_weight * events[t] + self.event_bias)
                one += by_novelty[i] * (sigmoid(changed[t]) - sigmoid(most) * one)
                out[t] = of_sequence * one
                if surges[t] != 0.0:
                    out[t] = 1 - (1 - out[t]) * (1 - self.sure(surge, surges[t], of[i]))
            start += lengths[i]
        return found


def likeliest(const double[:, :] types):
    """Int64 (N,), the place of the likeliest type, the first of several, and float64 (N,), its share."""
    place, share = np.empty(types.shape[0], dtype=np.int64), np.empty(types.shape[0])
    cdef int64_t[::1] at = place
    cdef double[::1] out = share
    cdef double total
    cdef Py_ssize_t i, k
    for i in range(types.shape[0]):
        at[i], total = 0, 0.0
        for k in range(1, types.shape[1]):
            at[i] = k if types[i, k] > types[i, at[i]] else at[i]
        for k in range(types.shape[1]):
            total += exp(types[i, k] - types[i, at[i]])
        out[i] = 1 / total
    return place, share


def which(missing):
    """See `false_alarms.which`."""
    cdef const unsigned char[:, :] lacks = missing.view(np.uint8)
    found = np.zeros(lacks.shape[0], dtype=np.int64)
    cdef int64_t[::1] out = found
    cdef Py_ssize_t i, k, columns = lacks.shape[1]
    for i in range(lacks.shape[0]):
        for k in range(columns):
            if lacks[i, k]:
                out[i] = columns + 1 if out[i] else k + 1
                if out[i] == columns + 1:
                    break
    return found


def first_below(const double[:, :, :] thresholds, const int64_t[:] lacks, const int64_t[:] of, const double[:] score):
    """Int64 (N,): the first of R thresholds (C, B, R) that lies below each score in its class; the last if none."""
    found = np.empty(score.shape[0], dtype=np.int64)
    cdef int64_t[::1] out = found
    cdef Py_ssize_t i, r, last = thresholds.shape[2] - 1
    for i in range(score.shape[0]):
        r = 0
        while r < last and not score[i] > thresholds[lacks[i], of[i], r]:
            r += 1
        out[i] = r
    return found
