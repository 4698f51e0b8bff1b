/* Explicit Euler steps of two partial differential equations on a torus, and the gradient of the sum of the squares of
   the last field in the first, by an adjoint by hand. `rows` is a buffer for all states, with a border of one cell. */

#include <string.h>

/* The border of an n x n field in rows of n + 2 repeats its opposite side. */
static void wrap(float *x, int n) {
    int w = n + 2;
    memcpy(x, x + n * w, w * sizeof(float));
    memcpy(x + (n + 1) * w, x + w, w * sizeof(float));
    for (int i = 0; i < n + 2; i++) {
        x[i * w] = x[i * w + n];
        x[i * w + n + 1] = x[i * w + 1];
    }
}

static inline float spread(const float *x, int w) { return x[1] + x[-1] + x[w] + x[-w] - 4 * x[0]; }

float gray_scott(const float *y0, int n, int steps, float h, float *rows, float *cotangents, float *gradient) {
    int w = n + 2, size = w * w;
    for (int s = 0; s < 2; s++)
        for (int i = 0; i < n; i++) memcpy(rows + s * size + (i + 1) * w + 1, y0 + (s * n + i) * n, n * sizeof(float));
    for (int k = 0; k < steps; k++) {
        float *u = rows + (long)k * 2 * size, *v = u + size, *next = v + size;
        wrap(u, n), wrap(v, n);
        for (int i = 1; i <= n; i++)
            for (int j = i * w + 1; j <= i * w + n; j++) {
                float react = u[j] * v[j] * v[j];
                next[j] = u[j] + h * (0.16f * spread(u + j, w) - react + 0.035f * (1 - u[j]));
                next[size + j] = v[j] + h * (0.08f * spread(v + j, w) + react - 0.095f * v[j]);
            }
    }
    float *end = rows + (long)steps * 2 * size, value = 0;
    float *a = cotangents, *b = cotangents + 2 * size;
    for (int s = 0; s < 2; s++)
        for (int i = 1; i <= n; i++)
            for (int j = s * size + i * w + 1; j <= s * size + i * w + n; j++) value += end[j] * end[j], a[j] = 2 * end[j];
    for (int k = steps - 1; k >= 0; k--) {
        const float *u = rows + (long)k * 2 * size, *v = u + size;
        float *p = a, *q = a + size;
        wrap(p, n), wrap(q, n);
        for (int i = 1; i <= n; i++)
            for (int j = i * w + 1; j <= i * w + n; j++) {
                float vv = v[j] * v[j], uv = 2 * u[j] * v[j];
                b[j] = p[j] + h * (0.16f * spread(p + j, w) - (vv + 0.035f) * p[j] + vv * q[j]);
                b[size + j] = q[j] + h * (0.08f * spread(q + j, w) + (uv - 0.095f) * q[j] - uv * p[j]);
            }
        float *swap = a;
        a = b, b = swap;
    }
    for (int s = 0; s < 2; s++)
        for (int i = 0; i < n; i++) memcpy(gradient + (s * n + i) * n, a + s * size + (i + 1) * w + 1, n * sizeof(float));
    return value;
}

float burgers(const float *y0, int n, int steps, float h, float *rows, float *cotangents, float *gradient) {
    const float c = 128, d = 131.072f;
    int w = n + 2;
    memcpy(rows + 1, y0, n * sizeof(float));
    for (int k = 0; k < steps; k++) {
        float *u = rows + (long)k * w, *next = u + w;
        u[0] = u[n], u[n + 1] = u[1];
        for (int j = 1; j <= n; j++)
            next[j] = u[j] + h * (-c * u[j] * (u[j + 1] - u[j - 1]) + d * (u[j - 1] - 2 * u[j] + u[j + 1]));
    }
    float *end = rows + (long)steps * w, value = 0, *a = cotangents, *b = cotangents + w;
    for (int j = 1; j <= n; j++) value += end[j] * end[j], a[j] = 2 * end[j];
    for (int k = steps - 1; k >= 0; k--) {
        float *u = rows + (long)k * w;
        a[0] = a[n], a[n + 1] = a[1];
        u[0] = u[n], u[n + 1] = u[1];
        for (int j = 1; j <= n; j++)
            b[j] = a[j] + h * (a[j] * (-c * (u[j + 1] - u[j - 1]) - 2 * d) + a[j - 1] * (d - c * u[j - 1])
                               + a[j + 1] * (d + c * u[j + 1]));
        float *swap = a;
        a = b, b = swap;
    }
    memcpy(gradient, a + 1, n * sizeof(float));
    return value;
}
