import { beforeEach, describe, expect, test } from 'vitest';
import { TestKms } from './testing.ts';

let kms: TestKms;
beforeEach(async () => {
  kms = await TestKms.create();
});

describe('tags', () => {
  test('are added, changed, removed and listed in pages', async () => {
    const { KeyId } = await kms.key({ Tags: [{ TagKey: 'b', TagValue: '1' }] });
    await kms.run('TagResource', {
      KeyId,
      Tags: [
        { TagKey: 'a', TagValue: '' },
        { TagKey: 'b', TagValue: '2' },
      ],
    });
    expect(kms.last.record?.requestParameters).toEqual({
      keyId: KeyId,
      tags: [
        { tagKey: 'a', tagValue: '' },
        { tagKey: 'b', tagValue: '2' },
      ],
    });
    const first = await kms.run('ListResourceTags', { KeyId, Limit: 1 });
    expect(first).toMatchObject({ Tags: [{ TagKey: 'a', TagValue: '' }], Truncated: true });
    expect(await kms.run('ListResourceTags', { KeyId, Marker: first.NextMarker })).toEqual({
      Tags: [{ TagKey: 'b', TagValue: '2' }],
      Truncated: false,
    });
    await kms.run('UntagResource', { KeyId, TagKeys: ['a', 'never'] });
    expect((await kms.run('ListResourceTags', { KeyId })).Tags).toEqual([{ TagKey: 'b', TagValue: '2' }]);
  });

  test('follow AWS’s rules', async () => {
    const { KeyId } = await kms.key();
    const tag = (TagKey: string, TagValue = '') => ({ TagKey, TagValue });
    const many = Array.from({ length: 51 }, (_, i) => tag(`k${i}`));
    const cases: Array<[object[], string]> = [
      [[tag('a'), tag('a')], 'Duplicate tag keys'],
      [many, 'Too many tags'],
      [[tag('aws:x')], 'Tags beginning with aws: are reserved'],
      [[tag('AWS:x')], 'Tags beginning with aws: are reserved'],
      [[tag('a!')], 'Invalid tag'],
      [[tag('a', 'mine & yours')], 'Invalid tag'],
      [[tag('a\0')], 'Invalid tag'],
    ];
    for (const [Tags, message] of cases) {
      expect(await kms.fails('CreateKey', { Tags })).toEqual({ code: 'TagException', message });
      expect(await kms.fails('TagResource', { KeyId, Tags })).toEqual({ code: 'TagException', message });
    }
    await kms.run('TagResource', { KeyId, Tags: many.slice(0, 50) });
    expect(await kms.code('TagResource', { KeyId, Tags: [tag('one more')] })).toBe('TagException');
    await kms.run('TagResource', { KeyId, Tags: [tag('k1', 'changed')] });
    await kms.run('CreateKey', { Tags: [tag('Größe_.:/=+-@ 1', '+1: a/b=c@d-e_f')] });
  });
});
