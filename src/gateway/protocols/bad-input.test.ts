import { parseXML } from '@aws-sdk/xml-builder';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { AwsError } from '../../aws/errors.ts';
import { fakeServices } from '../testing.ts';
import { protocolHandlers } from './index.ts';
import type { WireRequest } from './protocol.ts';

const [kms, , ec2, sts, ebs, coffer] = fakeServices as typeof fakeServices & { length: 6 };

function wire(
  parts: Partial<Omit<WireRequest, 'body' | 'headers'>> & { body?: string | Buffer; headers?: Record<string, string> },
) {
  const { method = 'POST', path = '/', query = '', body = '', headers = {} } = parts;
  return {
    method,
    path,
    query,
    headers: new Map(Object.entries(headers)),
    body: Buffer.from(body as string),
  } satisfies WireRequest;
}

function failure(work: () => unknown): AwsError {
  try {
    work();
  } catch (error) {
    if (error instanceof AwsError) return error;
    throw error;
  }
  throw new Error('it did not fail');
}

describe('JSON bodies', () => {
  const decode = (body: string | Buffer, operation = 'Encrypt') =>
    protocolHandlers.awsJson1_1
      .recognize(kms!, wire({ body, headers: { 'x-amz-target': `TrentService.${operation}` } }))
      .decode(kms!.catalogue[operation]);

  test.each([
    ['not JSON', '{'],
    ['a trailing comma', '{"KeyId":"a",}'],
    ['an array', '[]'],
    ['a string', '"KeyId"'],
    ['null', 'null'],
    ['a number for a string', '{"KeyId":1}'],
    ['an object for a string', '{"KeyId":{}}'],
    ['an array for a string', '{"KeyId":["a"]}'],
    ['a boolean for a string', '{"KeyId":true}'],
    ['a string for a map', '{"EncryptionContext":"a"}'],
    ['an array for a map', '{"EncryptionContext":[]}'],
    ['a number in a map of strings', '{"EncryptionContext":{"a":1}}'],
    ['a string for a list', '{"GrantTokens":"a"}'],
    ['a string for a boolean', '{"DryRun":"true"}'],
    ['bytes that are not base64', '{"Plaintext":"a*b="}'],
    ['base64 without its padding', '{"Plaintext":"YQ"}'],
    ['a number for bytes', '{"Plaintext":1}'],
  ])('%s: SerializationException', (_name, body) => {
    expect(failure(() => decode(body))).toMatchObject({ code: 'SerializationException', httpStatus: 400 });
  });

  test.each(['"64"', '1.5', '1e999', 'true', '9007199254740993'])(
    '%s for an integer: SerializationException',
    (value) => {
      const error = failure(() => decode(`{"NumberOfBytes":${value}}`, 'GenerateDataKeyWithoutPlaintext'));
      expect(error.code).toBe('SerializationException');
      expect(error.message).toContain('NumberOfBytes');
    },
  );

  test('bytes that are not UTF-8: SerializationException', () => {
    expect(failure(() => decode(Buffer.from('{"KeyId":"\xff"}', 'latin1'))).code).toBe('SerializationException');
  });

  test('an empty body is an empty object, null members are absent, unknown ones are ignored', () => {
    expect(decode('')).toEqual({});
    expect(decode('{"KeyId":null,"Unknown":[{"a":1}],"GrantTokens":["a",null]}')).toEqual({ GrantTokens: ['a'] });
  });

  test('a map may have any key, __proto__ too', () => {
    const { EncryptionContext } = decode('{"EncryptionContext":{"__proto__":"x","constructor":"y"}}') as {
      EncryptionContext: Record<string, string>;
    };
    expect(Object.entries(EncryptionContext)).toEqual([
      ['__proto__', 'x'],
      ['constructor', 'y'],
    ]);
    expect(Object.getPrototypeOf(EncryptionContext)).toBe(Object.prototype);
  });

  test('a member that is only inherited is not there', () => {
    expect(decode('{"__proto__":{"KeyId":"a"}}')).toEqual({});
  });

  test('nesting as deep as a body can have does no harm', () => {
    const deep = '['.repeat(500_000) + ']'.repeat(500_000);
    // V8 would parse it, and take longer for that than all else that a request may need.
    expect(failure(() => decode(`{"KeyId":${deep}}`)).message).toContain('nested deeper than 512 levels');
  });

  test('brackets in a long string do not nest', () => {
    const text = `\\"${'[{'.repeat(20_000)}\\\\`;
    expect(decode(JSON.stringify({ KeyId: text, GrantTokens: [text] }))).toEqual({ KeyId: text, GrantTokens: [text] });
  });

  test('any text at all is read or refused', () => {
    fc.assert(
      fc.property(fc.oneof(fc.json(), fc.string({ unit: 'binary' })), (body) => {
        try {
          decode(body);
        } catch (error) {
          expect(error).toMatchObject({ code: 'SerializationException' });
        }
      }),
    );
  });
});

describe('query bodies', () => {
  const decode = (body: string, service = ec2!) => {
    const recognized = protocolHandlers[service.protocol].recognize(service, wire({ body }));
    return recognized.decode(service.catalogue[recognized.operationName]);
  };

  test.each([
    ['Size=4.5', 'InvalidParameterValue'],
    ['Size=', 'InvalidParameterValue'],
    ['Size=0x10', 'InvalidParameterValue'],
    ['Size=1e2', 'InvalidParameterValue'],
    ['Size=99999999999999999999', 'InvalidParameterValue'],
    ['Encrypted=yes', 'InvalidParameterValue'],
    ['Encrypted=TRUE', 'InvalidParameterValue'],
    ['Size.1=4', 'MalformedQueryString'],
    ['Size=4&Size=5', 'MalformedQueryString'],
    ['Action=DeleteVolume', 'MalformedQueryString'],
    ['AvailabilityZone=%', 'MalformedQueryString'],
    ['AvailabilityZone=%ff', 'MalformedQueryString'],
    ['TagSpecification=a', 'MalformedQueryString'],
    ['TagSpecification.Tag=a', 'MalformedQueryString'],
    ['TagSpecification.0.ResourceType=volume', 'MalformedQueryString'],
    ['TagSpecification.01.ResourceType=volume', 'MalformedQueryString'],
    ['TagSpecification.-1.ResourceType=volume', 'MalformedQueryString'],
    ['TagSpecification.1=a', 'MalformedQueryString'],
    [`${'A.'.repeat(100)}A=1`, 'MalformedQueryString'],
    [Array.from({ length: 20_001 }, (_, index) => `A.${index}=1`).join('&'), 'MalformedQueryString'],
    [Array.from({ length: 6_001 }, (_, index) => `${index}.A.B.C.D.E.F.G.H.I=1`).join('&'), 'MalformedQueryString'],
  ])('%.60s: %s', (parameters, code) => {
    const error = failure(() => decode(`Action=CreateVolume&Version=2016-11-15&${parameters}`));
    expect(error).toMatchObject({ code, httpStatus: 400 });
    expect(error.message.length).toBeLessThan(400);
  });

  test('a bad timestamp names its parameter', () => {
    const error = failure(() => decode('Action=DescribeSpotPriceHistory&StartTime=yesterday'));
    expect(error).toMatchObject({ code: 'InvalidParameterValue' });
    expect(error.message).toContain('StartTime');
  });

  test('gaps in a list close, whatever the numbers', () => {
    expect(decode('Action=DescribeVolumes&VolumeId.999999999=c&VolumeId.7=b&VolumeId.1=a')).toEqual({
      VolumeIds: ['a', 'b', 'c'],
    });
  });

  test('a list can have as many elements as clients send', () => {
    const ids = Array.from({ length: 1000 }, (_, index) => `vol-${index}`);
    const body = `Action=DescribeVolumes&${ids.map((id, index) => `VolumeId.${index + 1}=${id}`).join('&')}`;
    expect(decode(body)).toEqual({ VolumeIds: ids });
  });

  test('unknown parameters are ignored, plus signs are spaces, and empty values are values', () => {
    expect(decode('Action=CreateVolume&Version=x&Unknown.1.A=1&AvailabilityZone=a+b%2B&ClientToken=')).toEqual({
      AvailabilityZone: 'a b+',
      ClientToken: '',
    });
  });

  test('parameters may stand in the query string', () => {
    const request = wire({ method: 'GET', query: 'Action=AssumeRole&RoleArn=a%2Fb&DurationSeconds=900' });
    expect(protocolHandlers.awsQuery.recognize(sts!, request).decode(sts!.catalogue.AssumeRole)).toEqual({
      RoleArn: 'a/b',
      DurationSeconds: 900,
    });
  });

  test('a list of awsQuery has a level of its own', () => {
    const body = 'Action=AssumeRole&PolicyArns.member.2.arn=b&PolicyArns.member.1.arn=a';
    expect(decode(body, sts)).toEqual({ PolicyArns: [{ arn: 'a' }, { arn: 'b' }] });
    expect(failure(() => decode('Action=AssumeRole&PolicyArns.1.arn=a', sts)).code).toBe('MalformedQueryString');
    expect(decode('Action=AssumeRole&PolicyArns=', sts)).toEqual({ PolicyArns: [] });
  });

  test('any form at all is read or refused', () => {
    const names = [
      'Action',
      'Size',
      'TagSpecification',
      'TagSpecification.1',
      'TagSpecification.1.Tag.1.Key',
      'Iops.1',
      '.',
      '',
      '__proto__.1',
      'constructor',
    ];
    const pair = fc
      .tuple(fc.oneof(fc.constantFrom(...names), fc.string()), fc.string())
      .map(([name, value]) => `${name}=${value}`);
    fc.assert(
      fc.property(fc.array(pair), (pairs) => {
        try {
          decode(['Action=CreateVolume', ...pairs].join('&'));
        } catch (error) {
          expect(error).toBeInstanceOf(AwsError);
        }
      }),
    );
  });
});

describe('XML answers', () => {
  const hostile = [
    '<a>',
    '&amp;',
    ']]>',
    '"\'',
    '\u0000\u0001\u001f',
    '\ufffe\uffff',
    '\ud800',
    '\udc00x',
    '\r\n\t',
    'ß😀',
    '</message>',
  ];

  /** The production Char of XML 1.0: what may stand in a document at all. */
  const allXml = /^[\u0009\u000a\u000d\u0020-\ud7ff\ue000-\ufffd\u{10000}-\u{10ffff}]*$/u;

  function readable(body: string | Uint8Array): Record<string, unknown> {
    expect(body).toMatch(allXml);
    return parseXML(body as string) as Record<string, unknown>;
  }

  test.each(hostile)('hold %j in values and in errors', (value) => {
    const tags = { Tags: [{ Key: value, Value: value }] };
    const output = protocolHandlers.ec2Query.encode(ec2!, ec2!.operations.CreateVolume!, tags, value);
    readable(output.body);
    for (const service of [ec2!, sts!]) {
      const error = protocolHandlers[service.protocol].encodeError(
        service,
        new AwsError(value || 'Code', value),
        value,
      );
      readable(error.body);
    }
  });

  test('hold any string, and what XML can say comes back as it was', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), (value) => {
        const { body } = protocolHandlers.ec2Query.encodeError(ec2!, new AwsError('Code', `[${value}]`), 'id');
        const { Response } = readable(body) as { Response: { Errors: { Error: { Message: string } } } };
        if (allXml.test(value)) expect(Response.Errors.Error.Message).toBe(`[${value}]`);
      }),
    );
  });

  test('have the forms of AWS', () => {
    const ec2Error = protocolHandlers.ec2Query.encodeError(ec2!, new AwsError('A', 'b'), 'id');
    expect(ec2Error.body).toBe(
      '<?xml version="1.0" encoding="UTF-8"?>\n<Response><Errors><Error><Code>A</Code><Message>b</Message></Error></Errors><RequestID>id</RequestID></Response>',
    );
    const stsError = protocolHandlers.awsQuery.encodeError(sts!, new AwsError('A', 'b', { httpStatus: 503 }), 'id');
    expect(stsError.status).toBe(503);
    expect(stsError.body).toBe(
      '<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Receiver</Type><Code>A</Code><Message>b</Message></Error><RequestId>id</RequestId></ErrorResponse>',
    );
    const volumes = { Volumes: [{ VolumeId: 'vol-1', Attachments: [], SnapshotId: '', Encrypted: false }] };
    expect(protocolHandlers.ec2Query.encode(ec2!, ec2!.operations.DescribeVolumes!, volumes, 'id').body).toBe(
      '<?xml version="1.0" encoding="UTF-8"?>\n<DescribeVolumesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><requestId>id</requestId><volumeSet><item><volumeId>vol-1</volumeId><snapshotId></snapshotId><attachmentSet/><encrypted>false</encrypted></item></volumeSet></DescribeVolumesResponse>',
    );
  });
});

describe('unknown operations', () => {
  test.each([
    [kms!, 'Nonsense', false, 'UnknownOperationException'],
    [kms!, 'ReplicateKey', true, 'UnknownOperationException'],
    [ec2!, 'Nonsense', false, 'InvalidAction'],
    [ec2!, 'CreateVpc', true, 'InvalidAction'],
    [sts!, 'AssumeRoleWithSAML', true, 'InvalidAction'],
    [ebs!, 'Nonsense', false, 'UnknownOperationException'],
    [coffer!, 'Nonsense', false, 'UnknownOperationException'],
  ])('$name %s', (service, operation, isKnown, code) => {
    const error = protocolHandlers[service.protocol].unknownOperation(service, operation, isKnown);
    expect(error.code).toBe(code);
    expect(error.message).toContain(operation);
    expect(error.message.includes('Coffer does not implement')).toBe(isKnown);
  });

  test('no action, no route', () => {
    expect(failure(() => protocolHandlers.ec2Query.recognize(ec2!, wire({ body: 'Version=2016-11-15' }))).code).toBe(
      'MissingAction',
    );
    expect(failure(() => protocolHandlers.restJson1.recognize(ebs!, wire({ path: '/snapshots/a/b/c/d' }))).code).toBe(
      'UnknownOperationException',
    );
  });
});

describe('EBS direct paths', () => {
  const recognize = (method: string, path: string) =>
    protocolHandlers.restJson1.recognize(ebs!, wire({ method, path }));

  test('literals before labels, and the path as it was signed', () => {
    expect(recognize('POST', '/snapshots/completion/snap-1').operationName).toBe('CompleteSnapshot');
    expect(recognize('GET', '/snapshots/snap-1/blocks').operationName).toBe('ListSnapshotBlocks');
    expect(recognize('GET', '/snapshots/x/../snap-1/blocks').decode(ebs!.catalogue.ListSnapshotBlocks)).toEqual({
      SnapshotId: 'snap-1',
    });
  });

  test('labels and parameters of the wrong type', () => {
    expect(
      failure(() => recognize('GET', '/snapshots/snap-1/blocks/x').decode(ebs!.catalogue.GetSnapshotBlock)).code,
    ).toBe('SerializationException');
    expect(
      failure(() => recognize('GET', '/snapshots/%ff/blocks').decode(ebs!.catalogue.ListSnapshotBlocks)).code,
    ).toBe('SerializationException');
  });
});

test('internal answers write bytes as base64', () => {
  const { body } = protocolHandlers.internalJson.encode(
    coffer!,
    { name: 'Echo' },
    { a: Buffer.from('hi'), b: [Uint8Array.of(1)], c: 1 },
    'id',
  );
  expect(JSON.parse(body as string)).toEqual({ a: 'aGk=', b: ['AQ=='], c: 1 });
});
