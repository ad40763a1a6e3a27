import { awsJson1_1 } from './awsJson1_1.ts';
import { awsQuery } from './awsQuery.ts';
import { ec2Query } from './ec2Query.ts';
import { internalJson } from './internalJson.ts';
import type { ProtocolHandlers } from './protocol.ts';
import { restJson1 } from './restJson1.ts';

export const protocolHandlers: ProtocolHandlers = { awsJson1_1, awsQuery, ec2Query, restJson1, internalJson };
