/**
 * What the protocols have in common: how a request looks when it comes off the wire, how an answer looks when it goes on
 * it, and what a protocol does between the two. Each protocol is one file beside this one.
 */
import type { StaticOperationSchema } from '@smithy/types';
import type { AwsError } from '../../aws/errors.ts';
import type { Protocol, Service } from '../../aws/service.ts';

/** A request as it was sent: nothing decoded, nothing normalized, because the signature covers it in this form. */
export interface WireRequest {
  readonly method: string;
  /** The path before `?`, percent-encoding untouched. */
  readonly path: string;
  /** What follows `?`, undecoded; empty when nothing does. */
  readonly query: string;
  readonly headers: Headers;
  readonly body: Buffer;
}

/** Header values by lower-case name; a header sent several times has its values joined with `,` in order. */
export type Headers = ReadonlyMap<string, string>;

export interface WireResponse {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string | Uint8Array;
}

/** A request whose operation is known. The body is decoded later, once the caller is authenticated. */
export interface RecognizedRequest {
  readonly operationName: string;
  /**
   * The SDK's input type, read by the operation's schema; members that the schema doesn't know are left out.
   * @throws {AwsError} the protocol's error for a body that is malformed or of the wrong types
   */
  readonly decode: (schema: StaticOperationSchema | undefined) => object;
}

export interface ProtocolHandler {
  /** Finds out which operation of `service` is called; it need not exist. @throws {AwsError} when the request names none */
  recognize(service: Service, request: WireRequest): RecognizedRequest;
  encode(
    service: Service,
    operation: { readonly name: string; readonly schema?: StaticOperationSchema },
    output: unknown,
    requestId: string,
  ): WireResponse;
  /** `service` is absent when the request named none that exists. */
  encodeError(service: Service | undefined, error: AwsError, requestId: string): WireResponse;
  /** The error for an operation that the service doesn't have; `isKnown` when AWS has it and only Coffer doesn't. */
  unknownOperation(service: Service, operationName: string, isKnown: boolean): AwsError;
}

export type ProtocolHandlers = Readonly<Record<Protocol, ProtocolHandler>>;
