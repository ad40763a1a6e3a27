import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    environment: 'node',
    include: ['src/**/*.test.ts', 'test/**/*.test.ts'],
    // End-to-end tests start servers of their own: processes, not threads, so that a crash stays in its file.
    pool: 'forks',
    maxWorkers: 2,
    // The stock clients take seconds a command on a busy machine, and some look only every 15 s.
    testTimeout: 180_000,
    hookTimeout: 180_000,
    teardownTimeout: 20_000,
    expect: { poll: { timeout: 60_000, interval: 20 } },
  },
});
