import { describe, expect, it } from 'vitest';
import { GroupFlush } from './group-flush.ts';

type Finish = (error: NodeJS.ErrnoException | null) => void;

describe('grouped flushes', () => {
  it('share the fdatasync that began after they were asked for, and none that began before', () => {
    const syncs: Finish[] = [];
    const group = new GroupFlush(-1, (done) => syncs.push(done));
    const answered: string[] = [];
    group.flush(() => answered.push('first'));
    group.flush(() => answered.push('second'));
    group.flush(() => answered.push('third'));
    expect(syncs).toHaveLength(1);
    syncs[0]!(null);
    expect(answered).toEqual(['first']);
    expect(syncs).toHaveLength(2);
    syncs[1]!(null);
    expect(answered).toEqual(['first', 'second', 'third']);
    expect(syncs).toHaveLength(2);
  });

  it('fail for ever after the first failure, even if fdatasync would succeed again', async () => {
    const syncs: Finish[] = [];
    const group = new GroupFlush(-1, (done) => syncs.push(done));
    const answers: (string | undefined)[] = [];
    const answer = (error?: Error) => void answers.push(error?.message);
    group.flush(answer);
    group.flush(answer);
    syncs[0]!(Object.assign(new Error('lost'), { code: 'EIO' }));
    answer(await new Promise<Error | undefined>((resolve) => group.flush(resolve)));
    expect(answers).toHaveLength(3);
    for (const message of answers) expect(message).toContain('until the volume is attached again: EIO');
    expect(syncs).toHaveLength(1);
    expect(group.failure).toBeDefined();
  });

  it('say when it was the disk that is full', () => {
    const syncs: Finish[] = [];
    const group = new GroupFlush(-1, (done) => syncs.push(done));
    let code: string | undefined;
    group.flush((error) => (code = (error as { code?: string }).code));
    syncs[0]!(Object.assign(new Error('full'), { code: 'ENOSPC' }));
    expect(code).toBe('ENOSPC');
  });
});
