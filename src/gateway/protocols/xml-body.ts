/** XML answers of the query protocols: the SDK's own serializer, made safe for strings that XML cannot hold. */
import { XmlCodec } from '@aws-sdk/core/protocols';
import { shapeOf } from './shapes.ts';

const dateTime = 5;

const serializer = (() => {
  const codec = new XmlCodec({
    timestampFormat: { useTrait: true, default: dateTime },
    httpBindings: false,
    xmlNamespace: '',
    serviceNamespace: '',
  });
  codec.setSerdeContext({
    base64Encoder: (value: Uint8Array | string) => Buffer.from(value as Uint8Array).toString('base64'),
  } as never);
  return codec.createSerializer();
})();

/** The elements of a structure, without an element around them. */
export function writeXmlMembers(schema: unknown, value: unknown): string {
  const shape = shapeOf(schema);
  if (shape.isUnitSchema()) return '';
  serializer.write(shape, value ?? {});
  const xml = serializer.flush() as string;
  const end = xml.lastIndexOf('</');
  return end < 0 ? '' : onlyXmlCharacters(xml.slice(xml.indexOf('>') + 1, end));
}

export function xmlElement(name: string, text: string): string {
  return `<${name}>${escapeXml(text)}</${name}>`;
}

export function escapeXml(text: string): string {
  return onlyXmlCharacters(text.replace(/[&<>"'\r]/g, (character) => `&#${character.charCodeAt(0)};`));
}

/** What XML 1.0 has no way to write, not even escaped (production `Char`); lone surrogates are seen to separately. */
const notXml = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/g;

/** Replaces what XML cannot hold with U+FFFD, so that one bad tag never makes a whole answer unreadable. */
function onlyXmlCharacters(xml: string): string {
  return xml.toWellFormed().replace(notXml, '\ufffd');
}
